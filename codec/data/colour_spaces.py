"""Colour spaces that a file declares without an ICC profile, and profiles that Pillow does not look for."""

from collections.abc import Sequence

from codec.data.icc_profile import BT709_CURVE, SRGB_CURVE, profile
from codec.data.not_kept import Loss

Profile = tuple[bytes | None, list[Loss]]  # None where none is needed, or where none can be made: that is a loss

SRGB_GAMMA, SRGB_CHROMATICITIES = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # as PNG has them
TOLERANCE = 600  # of 100,000: nobody sees it, and programs round
D65, C, CINEMA = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
PRIMARIES = {  # of ITU-T H.273: x and y of white, red, green, blue
    1: ("BT.709", (*D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)),
    4: ("BT.470 M", (*C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.601 625", (*D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06)),
    6: ("BT.601 525", (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    7: ("SMPTE 240M", (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    9: ("BT.2020", (*D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)),
    11: ("DCI-P3", (*CINEMA, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    12: ("Display P3", (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    22: ("EBU 3213", (*D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077)),
}
PRIMARIES[2] = PRIMARIES[1]  # not said
CURVES = {4: (2.2,), 5: (2.8,), 8: (1.0,), 13: SRGB_CURVE, 2: SRGB_CURVE}
CURVES |= dict.fromkeys((1, 6, 14, 15), BT709_CURVE)
TRANSFERS = {4: "gamma 2.2", 5: "gamma 2.8", 8: "linear", 16: "PQ", 18: "HLG"}
LIKE_SRGB = ((1, 2), (1, 2, 6, 13, 14, 15))  # primaries and transfers that sRGB is shown for; 2: not said
JP2_BEGINNING = b"\0\0\0\x0cjP  \r\n\x87\n"


def coded(primaries: int, transfer: int, grey: bool = False) -> Profile:
    """The profile of these code points of H.273, where it is not sRGB or like it."""
    if primaries in LIKE_SRGB[0] and transfer in LIKE_SRGB[1]:
        return None, []
    known, chromaticities = PRIMARIES.get(primaries, (f"primaries {primaries}", None))
    names = [known] if primaries not in LIKE_SRGB[0] else []
    names += [TRANSFERS.get(transfer, f"transfer {transfer}")] if transfer not in LIKE_SRGB[1] else []
    return _made(" ".join(names), chromaticities, CURVES.get(transfer), grey)


def profile_of_png(chunks: dict[bytes, bytes], grey: bool) -> Profile:
    """The profile of what the chunks cICP, or gAMA and cHRM, say, where it is not sRGB."""
    if len(chunks.get(b"cICP", b"")) == 4:
        return coded(*chunks[b"cICP"][:2], grey)
    if b"sRGB" in chunks:
        return None, []
    gamma, chromaticities = (
        [int.from_bytes(data[at : at + 4]) for at in range(0, len(data), 4)]
        for data in (chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""))
    )
    names = []
    if len(chromaticities) == 8 and _differ(chromaticities, SRGB_CHROMATICITIES):
        names.append("cHRM")
    else:
        chromaticities = list(SRGB_CHROMATICITIES)
    curve: tuple[float, ...] = SRGB_CURVE
    if len(gamma) == 1 and gamma[0]:
        curve = (100_000 / gamma[0],)
        if _differ(gamma, (SRGB_GAMMA,)):
            names.append(f"gamma {curve[0]:.2g}")
    if not names:
        return None, []
    return _made(" ".join(names), [value / 100_000 for value in chromaticities], curve, grey)


def profile_of_avif(beginning: bytes) -> Profile:
    """The profile of what AVIF's box nclx says, where it is not sRGB or like it."""
    at = beginning.find(b"colrnclx") + 8
    return coded(*(int.from_bytes(beginning[n : n + 2]) for n in (at, at + 2))) if at >= 8 else (None, [])


def profile_of_jp2(beginning: bytes) -> bytes | None:
    """The ICC profile of a JP2 file, in its box colr."""
    at = beginning.find(b"colr\x02") if beginning.startswith(JP2_BEGINNING) else -1
    if at < 4:
        return None
    return beginning[at + 7 : at - 4 + int.from_bytes(beginning[at - 4 : at])] or None


def _differ(values: list[int], others: tuple[int, ...]) -> bool:
    return any(abs(value - other) > TOLERANCE for value, other in zip(values, others, strict=True))


def _made(name: str, chromaticities: Sequence[float] | None, curve: Sequence[float] | None, grey: bool) -> Profile:
    if chromaticities and curve:
        try:
            return profile(name, chromaticities, curve, grey), []
        except ValueError:
            pass  # numbers that are no colours
    return None, [Loss(f"colour space left out: {name}", f"colour space, {name}")]
