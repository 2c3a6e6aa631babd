"""Neighbourhood: where, in an image stored with a margin, a plane's pixels lie and what is known around them."""

from collections.abc import Sequence

import numpy as np

from codec.entropy.mixing_kernel import POSITIONS, Neighbours
from codec.entropy.mixture import Plane

_Offset = tuple[int, int]  # rows down, columns to the right

_BEHIND: tuple[_Offset, ...] = ((0, -1), (-1, 0), (-1, -1), (-1, 1))
_CROSS: tuple[_Offset, ...] = ((0, -1), (-1, 0), (0, 1), (1, 0))
_DIAGONAL: tuple[_Offset, ...] = ((-1, -1), (-1, 1), (1, -1), (1, 1))
# On the grid of twice the resolution, by phase; phase 0, the first plane, has none there.
_BETWEEN = ((), _DIAGONAL, _CROSS, _DIAGONAL + _CROSS)
# Of each phase the nearest one that is known, and the one across it.
_NEAREST: tuple[_Offset, ...] = ((0, -1), (-1, -1), (0, -1), (-1, 0))
_ACROSS: tuple[_Offset, ...] = ((-1, 0), (1, 1), (0, 1), (1, 0))


def stored_size(size: tuple[int, int, int], margin: int) -> int:
    """How many elements an image `[C, H, W]` takes with a margin on all sides."""
    channels, height, width = size
    return channels * (height + 2 * margin) * (width + 2 * margin)


def neighbours(plane: Plane, size: tuple[int, int, int], order: Sequence[int], margin: int) -> Neighbours:
    """Those of a plane of an image `[C, H, W]` whose channels are coded in `order`.

    Nothing farther is looked at than `margin`, the largest step of its planes.
    """
    width = size[2] + 2 * margin
    area = (size[1] + 2 * margin) * width

    def distance(channel: int, offset: _Offset, step: int = 1) -> int:
        return (channel - plane.channel) * area + (offset[0] * width + offset[1]) * step

    own, step, half = plane.channel, plane.step, plane.step // 2
    before, between = tuple(order[: plane.position]), _BETWEEN[plane.phase]
    here = [distance(channel, (0, 0)) for channel in before]
    errors = [distance(own, offset, step) for offset in _BEHIND]
    pixels = [(at, 0) for at in errors]
    errors += here + [distance(own, offset, half) for offset in between]
    seen_with = [(own, 0), *((channel, place) for place, channel in enumerate(before, 1))]
    pixels += [(distance(channel, offset, half), place) for offset in between for channel, place in seen_with]
    if not between:
        pixels += [
            (distance(channel, offset, step), place) for channel, place in seen_with[1:] for offset in _CROSS
        ]
    reach = half if plane.phase else step
    nearest, across = _NEAREST[plane.phase], _ACROSS[plane.phase]
    return Neighbours(
        class_=plane.kind * POSITIONS + plane.position,
        position=plane.position,
        start=own * area + (plane.top + margin) * width + plane.left + margin,
        down=step * width,
        right=step,
        here=np.array([*here, 0, 0][:2], np.int64),
        errors=np.array(errors, np.int64),
        pixels=np.array([at for at, _ in pixels], np.int64),
        origins=np.array([place for _, place in pixels], np.int64),
        nearest=distance(own, nearest, reach),
        across=distance(own, across, reach),
        nearest_in_first=distance(order[0], nearest, reach),
    )
