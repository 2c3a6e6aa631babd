"""Colour spaces that a file declares without an ICC profile, and profiles that Pillow does not look for."""

SRGB_GAMMA, SRGB_CHROMATICITIES = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # as PNG has them
TOLERANCE = 600  # of 100,000: nobody sees it, and programs round
PRIMARIES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3", 22: "EBU 3213"}  # of ITU-T H.273
TRANSFERS = {4: "gamma 2.2", 5: "gamma 2.8", 8: "linear", 16: "PQ", 18: "HLG"}
LIKE_SRGB = ((1, 2), (1, 2, 6, 13, 14, 15))  # primaries and transfers that sRGB is shown for; 2: not said
JP2_BEGINNING = b"\0\0\0\x0cjP  \r\n\x87\n"


def coded(primaries: int, transfer: int) -> str | None:
    """The colour space that these code points of H.273 name, where it is not sRGB or like it."""
    if primaries in LIKE_SRGB[0] and transfer in LIKE_SRGB[1]:
        return None
    names = [PRIMARIES.get(primaries, f"primaries {primaries}")] if primaries not in LIKE_SRGB[0] else []
    names += [TRANSFERS.get(transfer, f"transfer {transfer}")] if transfer not in LIKE_SRGB[1] else []
    return " ".join(names)


def of_png(chunks: dict[bytes, bytes]) -> str | None:
    """The colour space that the chunks cICP, or gAMA and cHRM, name, where it is not sRGB."""
    if len(chunks.get(b"cICP", b"")) == 4:
        return coded(*chunks[b"cICP"][:2])
    if b"sRGB" in chunks:
        return None
    gamma, chromaticities = (
        [int.from_bytes(data[at : at + 4]) for at in range(0, len(data), 4)]
        for data in (chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""))
    )
    names = []
    if len(chromaticities) == 8 and _differ(chromaticities, SRGB_CHROMATICITIES):
        names.append("cHRM")
    if len(gamma) == 1 and gamma[0] and _differ(gamma, (SRGB_GAMMA,)):
        names.append(f"gamma {100_000 / gamma[0]:.2g}")
    return " ".join(names) or None


def of_avif(beginning: bytes) -> str | None:
    """The colour space that AVIF's box nclx names, where it is not sRGB or like it."""
    at = beginning.find(b"colrnclx") + 8
    return coded(*(int.from_bytes(beginning[n : n + 2]) for n in (at, at + 2))) if at >= 8 else None


def profile_of_jp2(beginning: bytes) -> bytes | None:
    """The ICC profile of a JP2 file, in its box colr."""
    at = beginning.find(b"colr\x02") if beginning.startswith(JP2_BEGINNING) else -1
    if at < 4:
        return None
    return beginning[at + 7 : at - 4 + int.from_bytes(beginning[at - 4 : at])] or None


def _differ(values: list[int], others: tuple[int, ...]) -> bool:
    return any(abs(value - other) > TOLERANCE for value, other in zip(values, others, strict=True))
