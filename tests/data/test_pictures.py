"""read_picture and write_image: what a file holds beside its 8-bit pixels is kept, or named."""

import functools
import io
import random
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from png_files import chunk, header, pixels, png

from codec.data.image_file import (
    ImageFileError,
    LossyInputError,
    check_all_kept,
    image_size,
    read_image,
    read_picture,
    write_image,
)
from codec.metadata import Metadata

COLOURS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
GREYS = np.array([[0, 100, 200], [30, 60, 255]], np.uint8)
DEEP = GREYS.astype(np.uint16) * 256 + 77
XMP = b'<rdf:Description tiff:Orientation="6" dc:title="a title"/>'


@functools.cache  # it holds the second in which it is made
def profile(space="sRGB"):
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()


def exif(orientation=6):
    tags = Image.Exif()
    tags[0x010F], tags[0x8769] = "a maker", {0x9003: "2020:01:01 00:00:00"}
    if orientation:
        tags[0x0112] = orientation
    return tags.tobytes()


def saved(path, image, **options):
    image.save(path, **options)
    return path


def picture(path, channels=None):
    found = read_picture(path, channels)
    assert tuple(found.image.shape[1:]) == image_size(path)
    assert torch.equal(found.image, read_image(path, channels))
    return found


def refusal(path, channels=None):
    with pytest.raises(LossyInputError) as caught:
        check_all_kept(picture(path, channels), path)
    assert str(caught.value).startswith(f"{path}: a lossless model cannot keep its ")
    return str(caught.value).removeprefix(f"{path}: a lossless model cannot keep its ").split(":")[0]


OPAQUE = "alpha left out, opaque everywhere"
SAME_IN_8 = "16 → 8 bits, of which the samples are multiples"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.fromarray(COLOURS), ()),
        (Image.fromarray(GREYS), ()),
        (Image.fromarray(GREYS > 90), ()),
        (Image.fromarray(np.dstack([COLOURS, np.full((2, 3), 255, np.uint8)])), (OPAQUE,)),
        (Image.fromarray(np.dstack([GREYS, np.full((2, 3), 255, np.uint8)]), "LA"), (OPAQUE,)),
        (Image.fromarray(GREYS.astype(np.uint16) * 257), (SAME_IN_8,)),
        (Image.fromarray(COLOURS).quantize(4), ()),
    ],
    ids=["colour", "grey", "bits", "opaque", "opaque grey", "16 bits of 8", "palette"],
)
def test_of_an_ordinary_picture_nothing_is_lost(tmp_path, image, said):
    path = saved(tmp_path / "a.png", image)
    assert (picture(path).dropped, picture(path).not_kept) == (said, ())
    check_all_kept(picture(path), path)


def test_transparency_is_named(tmp_path):
    half = np.dstack([COLOURS, np.full((2, 3), 254, np.uint8)])
    path = saved(tmp_path / "a.png", Image.fromarray(half))
    assert picture(path).dropped == ("transparency laid over white",)
    assert refusal(path) == "transparency"


def test_a_transparent_palette_entry_is_named_only_where_a_pixel_has_it(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    for suffix in (".png", ".gif"):
        assert refusal(saved(tmp_path / f"a{suffix}", image, transparency=1)) == "transparency"
    assert picture(saved(tmp_path / "b.png", image, transparency=7)).dropped == ()


@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_of_every_colour_type(tmp_path, colour, samples):
    deep = np.repeat(DEEP[..., None], samples, 2)
    if samples in (2, 4):
        deep[..., -1] = 65535
    path = tmp_path / "a.png"
    alpha = (OPAQUE,) if samples in (2, 4) else ()
    for scaled, said in ((deep, ("16 → 8 bits", *alpha)), ((deep >> 8) * 257, (SAME_IN_8, *alpha))):
        path.write_bytes(png(header(3, 2, 16, colour), pixels(*(row.astype(">u2").tobytes() for row in scaled))))
        found = picture(path)
        assert found.dropped == said
        assert (found.image.numpy() == GREYS).all()
        assert len(found.image) == (1 if samples < 3 else 3)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_16_bit_tiff_of_every_layout(tmp_path, samples, order, planes, compression):
    deep = np.repeat(DEEP[..., None], samples, 2)
    extra = {"extrasamples": ["unassalpha"]} if samples in (2, 4) else {}
    if extra:
        deep[..., -1] = 65535
    kind = "rgb" if samples > 2 else "minisblack"
    layout = {"planarconfig": planes, "photometric": kind, **extra} if samples > 1 else {"photometric": kind}
    path = tmp_path / "a.tif"
    alpha = (OPAQUE,) if extra else ()
    for scaled, said in ((deep, ("16 → 8 bits", *alpha)), ((deep >> 8) * 257, (SAME_IN_8, *alpha))):
        array = scaled[..., 0] if samples == 1 else np.moveaxis(scaled, -1, 0) if planes == "separate" else scaled
        tifffile.imwrite(path, array, byteorder=order, compression=compression, **layout)
        found = picture(path)
        assert found.dropped == said
        assert (found.image.numpy() == GREYS).all()
        assert len(found.image) == (1 if samples < 3 else 3)


def test_12_bit_tiff_is_scaled_by_its_own_white(tmp_path):
    samples = [0, 4095, 2048, 1000]
    data = int("".join(f"{sample:012b}" for sample in samples), 2).to_bytes(6)
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6)]
    fields = b"".join(b"".join(n.to_bytes(2, "little") for n in (t, 3, 1, 0, v, 0)) for t, v in tags)
    head = b"II*\0" + (14).to_bytes(4, "little") + data
    path = tmp_path / "a.tif"
    path.write_bytes(head + len(tags).to_bytes(2, "little") + fields + bytes(4))
    assert picture(path).image.flatten().tolist() == [0, 255, 128, 62]
    assert refusal(path) == "12-bit samples"


def test_other_formats_that_pillow_cuts_to_8_bits_are_named(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 65535 \1\2\3\4\5\6")
    assert picture(tmp_path / "a.ppm").dropped == ("16 → 8 bits",)
    assert picture(saved(tmp_path / "a.jp2", Image.fromarray(DEEP))).dropped == ("16 → 8 bits",)
    assert picture(saved(tmp_path / "b.jp2", Image.fromarray(COLOURS))).dropped == ()
    assert picture(saved(tmp_path / "b.avif", Image.fromarray(COLOURS))).dropped == ()


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif", ".tif", ".mpo"])
def test_of_several_frames_the_first_is_taken_and_the_others_named(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    word = {".tif": "pages", ".mpo": "pictures"}.get(suffix, "frames")
    path = saved(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:])
    assert picture(path).dropped == (f"first of 3 {word}",)
    assert refusal(path) == f"other 2 {word}"
    assert np.abs(picture(path).image[:, 4, 4].numpy().astype(int) - [255, 0, 0]).max() <= 2
    path = saved(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:2])
    assert refusal(path) == f"second {word[:-1]}"


def test_colour_and_inks_are_named(tmp_path):
    colours = saved(tmp_path / "a.png", Image.fromarray(COLOURS))
    assert refusal(colours, 1) == "colour"
    grey = saved(tmp_path / "b.png", Image.merge("RGB", [Image.fromarray(GREYS)] * 3))
    assert picture(grey, 1).dropped == ()
    assert refusal(saved(tmp_path / "c.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))) == "four inks"


def test_several_losses_are_named_together(tmp_path):
    deep = np.dstack([DEEP] * 4)
    path = tmp_path / "a.png"
    path.write_bytes(png(header(3, 2, 16, 6), pixels(*(row.astype(">u2").tobytes() for row in deep))))
    assert picture(path).dropped == ("16 → 8 bits", "transparency laid over white")
    assert refusal(path) == "16-bit samples and transparency"


KEEPS_ALL = [".png", ".jpg", ".webp", ".avif"]


def with_metadata(path):
    """A file of COLOURS, on its side, with an RGB profile, EXIF and XMP."""
    image = Image.fromarray(COLOURS)
    if path.suffix == ".png":  # EXIF behind the pixels, and XMP as a text, as other programs write them
        icc = chunk(b"iCCP", b"name\0\0" + zlib.compress(profile()))
        xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        rows = pixels(*(row.tobytes() for row in COLOURS))
        path.write_bytes(png(header(3, 2), icc, xmp, rows, chunk(b"eXIf", exif()[6:])))
        return path
    return saved(path, image, exif=exif(), icc_profile=profile(), xmp=XMP)


@pytest.mark.parametrize("suffix", KEEPS_ALL)
def test_metadata_is_kept_upright_from_file_to_file(tmp_path, suffix):
    found = picture(with_metadata(tmp_path / f"in{suffix}"))
    assert found.image.shape == (3, 3, 2)
    assert found.dropped == ()
    assert found.metadata == Metadata(profile(), exif(1)[6:], XMP.replace(b"6", b"1"))
    for target in KEEPS_ALL:
        assert write_image(tmp_path / f"out{target}", found.image, found.metadata) == ()
        back = picture(tmp_path / f"out{target}")
        assert back.image.shape == found.image.shape
        assert (back.metadata.icc, back.metadata.xmp) == (found.metadata.icc, found.metadata.xmp)
        # Pillow leaves the orientation out of an AVIF's EXIF, where it is 1 by default.
        assert back.metadata.exif == (exif(None)[6:] if target == ".avif" else exif(1)[6:])


def test_a_tiff_s_description_is_kept_as_exif_and_comes_back(tmp_path):
    metadata = Metadata(profile(), exif(1)[6:], XMP.replace(b"6", b"1"))
    write_image(tmp_path / "a.tif", torch.from_numpy(COLOURS).permute(2, 0, 1), metadata)
    found = picture(tmp_path / "a.tif")
    assert found.metadata == metadata._replace(exif=exif(None)[6:])
    assert (found.image.permute(1, 2, 0).numpy() == COLOURS).all()


def test_what_a_format_cannot_hold_is_named(tmp_path):
    metadata = Metadata(profile(), exif(1)[6:], XMP)
    colours, greys = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    for suffix in (".bmp", ".ppm", ".tga", ".gif", ".jp2"):
        assert write_image(tmp_path / f"a{suffix}", colours, metadata) == ("ICC profile", "EXIF", "XMP")
    assert write_image(tmp_path / "a.webp", greys, metadata) == ("ICC profile",)
    large = Metadata(exif=b"II*\0" + bytes(70_000), xmp=bytes(70_000))
    assert write_image(tmp_path / "a.jpg", colours, large) == ("EXIF", "XMP")
    assert write_image(tmp_path / "a.png", colours, large) == ()


def test_metadata_that_no_writer_understands_costs_no_picture(tmp_path):
    image = torch.full((3, 8, 8), 90, dtype=torch.uint8)
    junk = Metadata(b"junk", b"II*\0\xff\xff\xff\xff", b"junk")
    for suffix in (*KEEPS_ALL, ".tif", ".jxl"):
        write_image(tmp_path / f"a{suffix}", image, junk)
        assert int((read_image(tmp_path / f"a{suffix}").int() - 90).abs().max()) <= 2


def test_a_profile_stays_with_pixels_that_it_is_for_and_is_named_where_it_goes(tmp_path):
    colours = saved(tmp_path / "a.png", Image.fromarray(COLOURS), icc_profile=profile())
    assert picture(colours).metadata.icc == profile()
    assert (picture(colours).image.permute(1, 2, 0).numpy() == COLOURS).all()
    assert picture(colours, 1).dropped == ("colour → grey", "ICC profile left out: it is not one of grey")
    assert picture(colours, 1).metadata.icc is None
    inks = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8)), icc_profile=profile())
    assert picture(inks).metadata.icc is None


def test_damaged_metadata_is_left_out_and_named_and_no_pixel_with_it(tmp_path):
    path = saved(
        tmp_path / "a.jpg", Image.new("RGB", (8, 8)), icc_profile=b"x" * 300, exif=b"Exif\0\0junk", xmp=XMP
    )
    assert picture(path).dropped == ("damaged ICC profile left out", "damaged EXIF left out")
    assert picture(path).metadata.names() == ("XMP",)
    check_all_kept(picture(path), path)


def test_a_picture_turned_by_xmp_alone_has_the_size_that_is_told(tmp_path):
    for suffix, options in ((".jpg", {"xmp": XMP}), (".webp", {"xmp": XMP}), (".tif", {"tiffinfo": {700: XMP}})):
        path = saved(tmp_path / f"a{suffix}", Image.fromarray(COLOURS), **options)
        assert picture(path).image.shape == (3, 3, 2)


def test_streams_are_read_and_written_without_a_way_back():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

    image = torch.from_numpy(GREYS)[None]
    for format in (None, "TIFF", "WEBP"):
        out = Pipe()
        write_image(out, image, Metadata(xmp=b"x"), format)
        found = read_picture(Pipe(out.getvalue()), 1)
        assert torch.equal(found.image, image)
        assert found.metadata == Metadata(xmp=b"x")
    with pytest.raises(ImageFileError, match="^the stream: not an image we read"):
        read_picture(Pipe(b"%!PS-Adobe-3.0 EPSF-3.0"))


@pytest.mark.parametrize("beginning", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"BLP2", b"8BPS\0\1"])
def test_no_decoder_of_a_format_that_is_not_listed_is_reached(tmp_path, beginning):
    path = tmp_path / "a.jpg"
    path.write_bytes(beginning + bytes(200))
    with pytest.raises(ImageFileError, match="not an image we read") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageFileError, match="not an image we read"):
        image_size(path)


@pytest.mark.parametrize("suffix", KEEPS_ALL)
def test_no_damage_to_the_metadata_costs_the_picture(tmp_path, suffix):
    whole = with_metadata(tmp_path / f"a{suffix}").read_bytes()
    numbers = random.Random(0)
    for part in (exif()[6:], profile(), XMP):
        at = whole.find(part[:8])
        for _ in range(40 if at >= 0 else 0):  # PNG's profile is compressed
            data = bytearray(whole)
            for _ in range(numbers.choice([1, 3, 30])):
                data[at + numbers.randrange(len(part))] = numbers.randrange(256)
            found = read_picture(io.BytesIO(bytes(data)))
            assert sorted(found.image.shape[1:]) == [2, 3]
            assert tuple(found.image.shape[1:]) == image_size(io.BytesIO(bytes(data)))
            assert found.not_kept == ()
