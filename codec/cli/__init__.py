"""The command `codec`: images to files and back.

files has compress and decompress, extract has extract and info, whose --trace is in trace, models has models;
decoding has what those share that load a codec; main reads the arguments.
"""

from codec.cli.main import main

__all__ = ["main"]
