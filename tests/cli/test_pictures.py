"""What `codec` says of a picture that cannot be kept whole, and what travels with it: profile, EXIF, XMP."""

import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_files import ABOUT, POINT, files, one_line, picture, pictures, runner
from conftest import make_codec
from PIL import Image, ImageCms, ImageDraw
from torch import Tensor

from codec import bitstream
from codec.checkpoint import load_pretrained, save_weights
from codec.cli.notes import Usual, of_rate, usual_of
from codec.data.image_file import read_image, read_picture, write_image
from codec.learned_codec import LearnedCodec
from codec.metadata import Metadata
from codec.metrics import psnr
from codec.schemes.lossless_unet import LosslessUNet

pytestmark = pytest.mark.usefixtures("here")
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'


def travelled(path: str) -> None:
    """An image file with a profile, EXIF and XMP."""
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    image = read_image(picture(path))
    write_image(path, image, Metadata(ICC, exif.tobytes().removeprefix(b"Exif\0\0"), XMP))


def deep(path: str) -> Path:
    """A 16-bit grey file."""
    Image.fromarray(np.arange(17 * 23, dtype=np.uint16).reshape(17, 23) * 160).save(path)
    return Path(path)


# ---- what is dropped


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("alpha.png", "transparency laid over white"),
        ("deep.png", "16 → 8 bits"),
        ("moving.gif", "first of 2 frames"),
        ("ink.jpg", "CMYK → RGB"),
    ],
)
def test_a_lossy_model_says_in_the_line_of_a_file_what_it_drops(name: str, said: str, run) -> None:
    if name == "deep.png":
        deep(name)
    elif name == "moving.gif":
        picture(name, mode="RGB", save_all=True, append_images=[Image.new("RGB", (23, 17), "red")])
    elif name == "alpha.png":
        Image.new("RGBA", (23, 17), (9, 99, 199, 100)).save(name)
    else:
        picture(name, mode="CMYK")
    status, out, err = run("compress", name, "a.qnt")
    assert (status, err) == (0, "")
    assert re.search(rf"1:\d+\.\d; .*{said}", one_line(out))


def test_a_greyscale_model_says_that_colour_is_lost(run) -> None:
    save_weights(make_codec("conv_baseline", channels=1, overrides=("model.widths=[8,8]",)), "grey.safetensors")
    picture("a.png")
    assert "; colour → grey" in run("compress", "a.png", "a.qnt", "--checkpoint", "grey.safetensors")[1]


def test_a_picture_that_is_kept_whole_has_nothing_said_of_it(run) -> None:
    picture("a.bmp", (64, 64))
    assert one_line(run("compress", "a.bmp", "a.qnt")[1]).count(";") == 0


def test_a_lossless_model_refuses_what_it_cannot_keep_and_does_the_others(run) -> None:
    save_weights(make_codec("lossless_unet"), "lossless.safetensors")
    picture("in/a.png", (16, 16))
    Image.new("RGBA", (16, 16), (9, 99, 199, 100)).save("in/alpha.png")
    Image.new("RGBA", (16, 16), (9, 99, 199, 255)).save("in/opaque.png")
    deep("in/deep.png")
    status, _, err = run("compress", "in", "out", "--checkpoint", "lossless.safetensors")
    assert status == 1
    assert files("out") == ["a.qnt", "opaque.qnt"]
    alpha, sixteen, count = err.splitlines()
    assert alpha.startswith(
        "codec: in/alpha.png: a lossless model cannot keep its transparency: convert the image first"
    )
    assert sixteen.startswith("codec: in/deep.png: a lossless model cannot keep its 16-bit samples: ")
    assert count == "codec: 2 of 4 files failed"
    assert run("decompress", "out", "back", "--checkpoint", "lossless.safetensors")[0] == 0
    for name in ("a.png", "opaque.png"):
        assert torch.equal(read_image(f"back/{name}"), read_image(f"in/{name}"))


def test_verify_writes_no_file_that_does_not_give_the_image_back(run) -> None:
    save_weights(make_codec("lossless_unet"), "lossless.safetensors")
    picture("a.png", (16, 16))
    command = ("compress", "a.png", "a.qnt", "--checkpoint", "lossless.safetensors", "--verify")
    right = LosslessUNet.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LosslessUNet, "read", lambda *given: 1 - right(*given))
        status, _, err = run(*command)
    assert status == 1
    assert "a.png: the image does not come back from its file: this device is not exact" in err
    assert files() == ["a.png", "lossless.safetensors"]
    status, out, _ = run(*command)
    assert status == 0
    assert ", verified: decoded again, it gives the image back" in one_line(out)


def test_what_was_verified_is_said_of_every_file_and_in_the_end(run, codec: LearnedCodec) -> None:
    pictures("in/a.png", "in/b.png")
    Path("in/c.png").write_text("no image")
    status, out, _ = run("compress", "in", "out", "--verify")
    assert status == 1
    a, b, last = out.splitlines()
    reached = psnr(codec.decode(Path("out/a.qnt").read_bytes()), read_image("in/a.png"))
    assert a.endswith(f", {reached:.2f} dB, verified: decoded again")
    assert b.endswith(" dB, verified: decoded again")
    assert last == "2 of 3 files verified: decoded again before they were written"


# ---- what travels along


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_profile_exif_and_xmp_come_back(suffix: str, run) -> None:
    travelled("a.png")
    assert run("compress", "a.png", "a.qnt")[0] == 0
    assert run("decompress", "a.qnt", f"b{suffix}")[0] == 0
    metadata = read_picture(f"b{suffix}").metadata
    assert (metadata.icc, metadata.xmp) == (ICC, XMP)
    with Image.open(f"b{suffix}") as image:
        assert image.getexif()[0x0110] == "a camera"


def test_strip_leaves_them_out_in_both_directions(run, checkpoint: Path) -> None:
    picture("plain.png")
    run("compress", "plain.png", "plain.qnt")
    travelled("a.png")
    run("compress", "a.png", "a.qnt", "--strip")
    assert Path("a.qnt").read_bytes() == Path("plain.qnt").read_bytes()
    run("compress", "a.png", "kept.qnt")
    assert bitstream.metadata_of(Path("kept.qnt").read_bytes())
    run("decompress", "kept.qnt", "b.png", "--strip")
    assert not read_picture("b.png").metadata
    assert Path("a.qnt").stat().st_size < Path("kept.qnt").stat().st_size


def test_damaged_metadata_costs_the_image_nothing_and_is_said(run) -> None:
    travelled("a.png")
    run("compress", "a.png", "a.qnt")
    run("compress", "a.png", "bare.qnt", "--strip")
    data = bytearray(Path("a.qnt").read_bytes()[:-4])
    data[40] ^= 0xFF  # in the zlib stream
    Path("a.qnt").write_bytes(bytes(data) + zlib.crc32(data).to_bytes(4, "big"))
    assert run("decompress", "a.qnt", "b.png") == (
        0,
        "a.qnt → b.png: 23×17; without its metadata, which is damaged\n",
        "",
    )
    assert run("decompress", "bare.qnt", "c.png")[0] == 0
    assert torch.equal(read_image("b.png"), read_image("c.png"))
    assert run("decompress", "a.qnt", "d.png", "--strip")[1] == "a.qnt → d.png: 23×17\n"
    status, out, err = run("info", "a.qnt")
    assert (status, err) == (0, "")
    assert re.search(r"  metadata     damaged, \d+ bytes; the image can be decoded\n", out)


def test_info_lists_them_with_their_sizes(run) -> None:
    travelled("a.png")
    run("compress", "a.png", "a.qnt")
    status, out, err = run("info", "a.qnt")
    assert (status, err) == (0, "")
    size = Path("a.qnt").stat().st_size
    run("compress", "a.png", "b.qnt", "--strip")
    more = size - Path("b.qnt").stat().st_size
    kept = rf"ICC profile of {len(ICC)} bytes, EXIF of \d+ bytes, XMP of {len(XMP)} bytes; compressed to {more}\n"
    assert re.search(rf"  metadata     {kept}", out)
    assert " bytes, 20 around\n" in out
    assert "  metadata     none\n" in run("info", "b.qnt")[1]


def test_a_kind_of_image_that_loses_something_is_named(run) -> None:
    travelled("a.png")
    run("compress", "a.png", "a.qnt")
    for name, said in {
        "b.jpg": "; re-encoded as JPEG",
        "b.png": "",
        "b.bmp": "; without its ICC profile, EXIF, XMP, which this kind of file cannot hold",
    }.items():
        assert run("decompress", "a.qnt", name)[1] == f"a.qnt → {name}: 23×17{said}\n"


# ---- what is worth a note


def test_a_file_that_is_larger_than_its_source_is_said(run) -> None:
    Image.new("L", (64, 64)).save("a.png", optimize=True)
    source = Path("a.png").stat().st_size
    out = one_line(run("compress", "a.png", "a.qnt")[1])
    assert Path("a.qnt").stat().st_size > source
    assert out.endswith(f"; larger than its source, {source} bytes")


def test_what_makes_a_lossless_file_larger_than_its_jpeg_is_said(
    photograph: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lossless, lossy = tmp_path / "lossless.safetensors", tmp_path / "lossy.safetensors"
    save_weights(make_codec("lossless_unet"), lossless)
    save_weights(make_codec("conv_baseline"), lossy)
    for name in ("a.jpg", "a.png"):
        write_image(name, photograph[:, :48, :48].contiguous())
    Image.open("a.jpg").save("a.jpg", quality=1)
    run = runner(capsys)
    why = ": what is stored is every pixel, not the JPEG's own coefficients"
    assert one_line(run("compress", "a.jpg", "a.qnt", "--checkpoint", lossless)[1]).endswith(why)
    assert why not in run("compress", "a.jpg", "b.qnt", "--checkpoint", lossy)[1]
    assert why not in run("compress", "a.png", "c.qnt", "--checkpoint", lossless)[1]


def test_a_rate_far_above_that_of_photographs_is_said() -> None:
    several = [{**POINT, "quality": 5, "bpp": 0.2}, {**POINT, "quality": 60, "bpp": 1.0, "psnr": 36.0}]
    ranged = replace(ABOUT, measured={"kodak": several, "bsd300": [{**several[0], "bpp": 0.3, "psnr": 29.0}]})
    assert [usual_of(ranged, quality) for quality in (0, 5, 7, 60, 99)] == [
        (0.3, 29.0),
        (0.3, 29.0),
        (1.0, 29.0),
        (1.0, 36.0),
        None,
    ]
    assert usual_of(replace(ABOUT, measured={"kodak": [POINT]}), None) == (0.5, 30.0)
    assert list(of_rate(4096, 1.4, None, Usual(0.5, 30.0))) == []
    (note,) = of_rate(4096, 1.6, 10.0, Usual(0.5, 30.0))
    assert note.startswith("photographs take about 0.50 bpp")
    assert list(of_rate(4096, 99.0, None, None)) == []
    assert list(of_rate(4095, 99.0, None, Usual(0.5, 30.0))) == []


@pytest.mark.parametrize("model", ["conv_baseline", "comcnn_reccnn"])
def test_line_art_is_said_to_be_no_photograph_whatever_its_rate(
    model: str, photograph: Tensor, capsys: pytest.CaptureFixture
) -> None:
    drawing = Image.new("RGB", (256, 256), "white")
    for ends in np.random.default_rng(0).integers(0, 256, (100, 4)).tolist():
        ImageDraw.Draw(drawing).line(ends, "black")
    drawing.save("lines.png")
    write_image("photograph.png", photograph[:, :192, :192].contiguous())
    run = runner(capsys)
    lines, real = (run("compress", f"{n}.png", f"{n}.qnt", "--model", model)[1] for n in ("lines", "photograph"))
    note = "if it is a drawing or a screenshot, try a lossless model\n"
    assert lines.endswith(note)
    assert note not in real
    decoded = psnr(load_pretrained(model).decode(Path("lines.qnt").read_bytes()), read_image("lines.png"))
    said = (
        f"; it comes back with {decoded:.1f} dB, photographs with 22.6: " if model == "conv_baseline" else " bpp: "
    )
    assert said in lines
