"""Figures and pictures of what was measured."""
