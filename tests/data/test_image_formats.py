"""What is read and written with a Pillow that lacks AVIF, and without the plugin for JPEG XL."""

import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from PIL import Image

from codec import baselines
from codec.baselines import JpegXL
from codec.data.image_file import ImageFileError, read_image, write_image
from codec.data.image_formats import FORMATS, INSTALL_JXL, NO_AVIF, readable, writable
from codec.data.image_list import SUFFIXES

LACKING = """
import sys
sys.modules["PIL._avif"] = sys.modules["pillow_jxl"] = None
from codec.data import image_decoder
from codec.data.image_formats import writable

for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            print(image_decoder.decode(file, ".png").image.size)
    except ValueError as error:
        print(error)
print(writable(".jxl"), writable(".png"))
print([name for name in ("torch", "torchvision", "tifffile", "scipy", "lightning") if name in sys.modules])
"""


def test_without_avif_and_jpeg_xl_all_else_is_read_and_these_two_are_named(tmp_path):
    paths = []
    for format in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"):
        paths.append(tmp_path / f"a.{format.lower()}")
        Image.new("RGB", (6, 4)).save(paths[-1], format)
    paths.append(tmp_path / "a.jxl")
    paths[-1].write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    command = [sys.executable, "-W", "error", "-c", LACKING, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *read, avif, jxl, written, imported = done.stdout.splitlines()
    assert read == ["(6, 4)"] * 5
    assert avif == NO_AVIF
    assert jxl == INSTALL_JXL
    assert written == "None PNG"
    assert imported == "[]"  # nor does reading a file need any of these
    assert done.stderr == ""


def test_the_baseline_says_what_to_install(monkeypatch):
    monkeypatch.setattr(baselines, "has_jxl", lambda: False)
    with pytest.raises(ValueError, match=re.escape(INSTALL_JXL)):
        JpegXL(quality=80)


def test_every_suffix_that_is_listed_is_of_a_format_that_is_opened():
    writable(".jxl")
    known = {Image.registered_extensions()[suffix] for suffix in SUFFIXES}
    assert known - {"TGA", "MPO"} <= set(FORMATS)
    assert {name for suffix in SUFFIXES for name in readable(bytes(16), suffix)} == {*FORMATS, "TGA"}
    assert "TGA" not in readable(bytes(16), ".png")


@pytest.mark.parametrize("suffix", [".ico", ".icns", ".pdf", ".eps", ".im", ".pcx", ".xyz"])
def test_what_changes_size_or_pixels_is_not_written(suffix, tmp_path):
    assert writable(suffix) is None
    with pytest.raises(ImageFileError, match=f"suffix '{suffix}' is none we write: use .png"):
        write_image(tmp_path / f"a{suffix}", torch.zeros(3, 2, 2, dtype=torch.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", sorted({".pbm", ".tga", *SUFFIXES} - {".avif", ".jxl"}))
def test_what_is_read_is_written_in_its_size(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_image(path, torch.zeros(3, 85, 300, dtype=torch.uint8))
    assert read_image(path).shape[1:] == (85, 300)
