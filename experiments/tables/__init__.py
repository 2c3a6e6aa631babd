"""The papers' tables beside what Quintet measures: a new one is a file in plans/.

make does what a plan lacks and writes its report; bd_rate and means are commands for any finished runs.
"""
