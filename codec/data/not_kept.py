"""What a picture's file has that is not kept of it."""

from typing import NamedTuple


class Loss(NamedTuple):
    """`said`: what happened, "16 → 8 bits". `what`: what of the pixels is not kept, "16-bit samples", or None."""

    said: str
    what: str | None = None
