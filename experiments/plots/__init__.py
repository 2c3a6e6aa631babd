"""Figures and pictures of what was measured.

curves, losses, pictures and over_epochs are commands; figures and comparison are what a new one is made with.
"""
