"""read_image, image_size, write_image, list_images: what each kind of file becomes, and what is refused."""

import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from codec.data.image_file import ImageFileError, image_size, read_image, write_image
from codec.data.image_list import list_images

# 2 rows of 3 pixels: which corner went where shows in every orientation.
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8)
GREYS = np.array([[0, 100, 200], [30, 60, 255]], np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def pixels(path, channels=None):
    image = read_image(path, channels)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert tuple(image.shape[1:]) == image_size(path)
    return image.permute(1, 2, 0).squeeze(2).numpy()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".PNG"])
def test_lossless_colour_comes_back_exactly(tmp_path, suffix):
    assert (pixels(saved(tmp_path / f"a{suffix}", Image.fromarray(COLOURS))) == COLOURS).all()


def test_grey_files_have_one_channel_unless_three_are_asked_for(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREYS))
    assert (pixels(path) == GREYS).all()
    assert (pixels(path, 3) == GREYS[..., None]).all()


def test_colour_becomes_grey_when_one_channel_is_asked_for(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOURS))
    assert (pixels(path, 1) == np.array(Image.fromarray(COLOURS).convert("L"))).all()


@pytest.mark.parametrize("original", [COLOURS, GREYS], ids=["colour", "grey"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, suffix, original):
    stored = {  # what a camera stores so that the original is seen
        1: original,
        2: original[:, ::-1],
        3: original[::-1, ::-1],
        4: original[::-1],
        5: original.swapaxes(0, 1),
        6: np.rot90(original),
        7: original[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(original, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert (pixels(path) == original).all()


def test_orientation_of_a_transparent_and_of_a_16_bit_file_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    opaque = np.dstack([COLOURS, np.full((2, 3), 254, np.uint8)])
    path = saved(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(np.rot90(opaque))), exif=exif)
    assert np.abs(pixels(path).astype(int) - COLOURS).max() <= 1
    deep = np.ascontiguousarray(np.rot90(GREYS)).astype(np.uint16) * 257
    assert (pixels(saved(tmp_path / "b.png", Image.fromarray(deep), exif=exif)) == GREYS).all()


def test_transparency_is_laid_over_white(tmp_path):
    half = np.dstack([COLOURS, np.array([[255, 0, 128], [255, 255, 255]], np.uint8)])
    seen = pixels(saved(tmp_path / "a.png", Image.fromarray(half)))
    assert seen[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 255]]
    assert (seen[1] == COLOURS[1]).all()


def test_grey_with_transparency_stays_grey(tmp_path):
    half = np.dstack([GREYS, np.array([[0, 255, 255], [255, 255, 255]], np.uint8)])
    seen = pixels(saved(tmp_path / "a.png", Image.fromarray(half, "LA")))
    assert seen.tolist() == [[255, 100, 200], [30, 60, 255]]


def test_palette_with_transparent_entry(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert pixels(saved(tmp_path / "a.png", image)).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    seen = pixels(saved(tmp_path / "b.png", image, transparency=1))
    assert seen.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_one_bit_is_black_and_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[True, False]])))
    assert pixels(path).tolist() == [[255, 0]]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path, suffix):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    seen = pixels(saved(tmp_path / f"a{suffix}", image))
    assert np.abs(seen.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(GREYS.astype(np.uint16) * 257))
    assert (pixels(path) == GREYS).all()


def test_16_bit_pgm_is_scaled(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 2 65535 " + (GREYS.astype(">u2") * 257).tobytes())
    assert (pixels(path) == GREYS).all()


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_tiff_of_8_and_16_bits_in_one_plane_or_three(tmp_path, depth, planar, compression):
    samples = COLOURS.astype(depth) * (257 if depth == np.uint16 else 1)
    if planar == "separate":
        samples = np.moveaxis(samples, -1, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples, photometric="rgb", planarconfig=planar, compression=compression)
    assert (pixels(path) == COLOURS).all()


def test_orientation_of_16_bit_tiff_is_applied(tmp_path):
    for name, samples in (("grey", GREYS), ("colour", COLOURS)):
        deep = np.ascontiguousarray(np.rot90(samples)).astype(np.uint16) * 257
        planar = "separate" if name == "colour" else None
        if planar:
            deep = np.moveaxis(deep, -1, 0)
        path = tmp_path / f"{name}.tif"
        kind = "rgb" if planar else "minisblack"
        tifffile.imwrite(path, deep, photometric=kind, planarconfig=planar, extratags=[(274, "H", 1, 6)])
        assert (pixels(path) == samples).all()


def test_16_bit_colour_png_is_scaled(tmp_path):
    rows = b"".join(b"\0" + row.tobytes() for row in COLOURS.astype(">u2") * 257)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    )
    assert (pixels(path) == COLOURS).all()


def test_tiff_with_white_as_zero_is_not_a_negative(tmp_path):
    for dtype, scale in ((np.uint8, 1), (np.uint16, 257)):
        path = tmp_path / f"{scale}.tif"
        tifffile.imwrite(path, (255 - GREYS).astype(dtype) * scale, photometric="miniswhite")
        assert (pixels(path) == GREYS).all()


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (pixels(path) == [255, 0, 0]).all()


def broken_files(folder):
    whole = saved(folder / "whole.png", Image.fromarray(COLOURS))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    saved(folder / "noise.jpg", noise)
    saved(folder / "noise.png", noise)
    (folder / "cut.jpg").write_bytes((folder / "noise.jpg").read_bytes()[:1000])
    (folder / "cut.png").write_bytes((folder / "noise.png").read_bytes()[:1000])
    (folder / "cut.tif").write_bytes(b"II*\0")
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")
    saved(folder / "float.tif", Image.fromarray(np.zeros((4, 4), np.float32)))
    saved(folder / "int.tif", Image.fromarray(np.zeros((4, 4), np.int32)))
    header = bytearray(whole.read_bytes())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(header)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("cut.jpg", "truncated"),
        ("cut.png", "truncated"),
        ("cut.tif", ""),
        ("empty.png", "not an image"),
        ("text.png", "not an image"),
        ("float.tif", "floating-point"),
        ("int.tif", "32-bit"),
        ("bomb.png", "bomb"),
        ("missing.png", "No such file"),
        ("", "Is a directory"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line_with_the_cause(tmp_path, name, cause):
    broken_files(tmp_path)
    with pytest.raises(ImageFileError) as caught:
        read_image(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_channels_other_than_1_and_3_are_refused(tmp_path):
    with pytest.raises(ValueError, match="channels=4: allowed are 1, 3 and null"):
        read_image(tmp_path / "a.png", 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_back_and_nothing_else_is_left(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    write_image(tmp_path / "a.png", image)
    assert torch.equal(read_image(tmp_path / "a.png"), image)
    assert os.listdir(tmp_path) == ["a.png"]  # noqa: PTH208


def test_written_files_respect_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_image(tmp_path / "a.png", torch.zeros(1, 2, 2, dtype=torch.uint8))
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("old")
    with pytest.raises(ImageFileError, match=r"a\.xyz: suffix '\.xyz' is none we write"):
        write_image(path, torch.zeros(1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ImageFileError, match="No such file"):
        write_image(tmp_path / "absent" / "a.png", torch.zeros(1, 2, 2, dtype=torch.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["a.xyz"]
    assert path.read_text() == "old"


def test_list_images_is_recursive_sorted_and_blind_to_case_and_hidden_files(tmp_path):
    for name in ("b.PNG", "a/c.JpEg", "a/d.txt", ".hidden.png", ".cache/e.png", "f.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == ["a/c.JpEg", "b.PNG", "f.tif"]
