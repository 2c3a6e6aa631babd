"""What command lines of several experiments read."""


def number(text: str) -> float:
    """A number, for argparse: whole ones as integers, since some codecs' qualities are. Raises ValueError."""
    value = float(text)
    return int(value) if value.is_integer() else value
