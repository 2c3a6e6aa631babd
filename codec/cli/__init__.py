"""The command `codec`: images to files and back."""

from codec.cli.main import main

__all__ = ["main"]
