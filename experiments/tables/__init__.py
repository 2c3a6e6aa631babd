"""The papers' tables beside what Quintet measures."""
