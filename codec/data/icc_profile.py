"""A small ICC profile for colours that are declared by numbers: primaries, white and a transfer function.

ICC.1:2010, version 4.3, of the kind with a matrix and curves: https://www.color.org/specification/ICC1v43_2010-12.pdf
"""

import struct
from collections.abc import Sequence

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])  # the white of all profiles, X Y Z
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)

_TAG = struct.Struct(">4sII")


def profile(name: str, chromaticities: Sequence[float], curve: Sequence[float], grey: bool) -> bytes:
    """An ICC profile, of grey or RGB.

    `chromaticities`: x and y of white, red, green and blue. `curve`: the gamma alone; or g, a, b, c, d, by which
    a sample v in [0, 1] is the light (a·v + b)**g from v = d on, and c·v below. Raises ValueError if these are
    numbers that no profile can have.
    """
    try:
        tags = _tags(name, np.array(chromaticities, np.float64).reshape(4, 2), curve, grey)
    except (struct.error, OverflowError, np.linalg.LinAlgError) as error:
        raise ValueError(f"no profile has these colours: {error}") from error
    table, data = struct.pack(">I", len(tags)), b""
    for tag, element in tags:
        table += _TAG.pack(tag, 128 + 4 + _TAG.size * len(tags) + len(data), len(element))
        data += element + bytes(-len(element) % 4)
    head = b"\x04\x30\0\0" + b"mntr" + (b"GRAY" if grey else b"RGB ") + b"XYZ "
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    head += date + b"acsp" + bytes(24) + struct.pack(">I", 1) + _numbers(*D50)  # 1: relative colorimetric
    rest = (bytes(4) + head).ljust(124, b"\0") + table + data
    return struct.pack(">I", 4 + len(rest)) + rest


def _tags(name: str, xy: np.ndarray, curve: Sequence[float], grey: bool) -> list[tuple[bytes, bytes]]:
    with np.errstate(all="ignore"):  # what comes of it is no number that can be packed
        xyz = np.column_stack([xy[:, 0], xy[:, 1], 1 - xy.sum(1)]) / xy[:, 1:]  # white, red, green, blue of Y = 1
        white, primaries = xyz[0], xyz[1:].T  # [3], [3, 3]: a column each
        adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
        matrix = adapted @ primaries * np.linalg.solve(primaries, white)
    kind = 0 if len(curve) == 1 else 3
    trc = b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _numbers(*curve)
    tags = [
        (b"desc", _text(name)),
        (b"cprt", _text("CC0")),
        (b"wtpt", b"XYZ " + bytes(4) + _numbers(*D50)),
        (b"chad", b"sf32" + bytes(4) + _numbers(*adapted.flatten())),
    ]
    if grey:
        return [*tags, (b"kTRC", trc)]
    columns = [b"XYZ " + bytes(4) + _numbers(*column) for column in matrix.T]
    return [
        *tags,
        *zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True),
        *((tag, trc) for tag in (b"rTRC", b"gTRC", b"bTRC")),
    ]


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _numbers(*values: float) -> bytes:
    """s15Fixed16. Raises struct.error, OverflowError or ValueError for what does not fit."""
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))
