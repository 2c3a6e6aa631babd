"""Some thousand mutations of every codec's files, of checkpoints and of images; `make fuzz` reads many more."""

import io
import resource
import zlib
from pathlib import Path
from random import Random

import pytest
from checkpoints import made
from comcnn_codecs import small
from conftest import crop, make_codec
from quantized_codecs import SMALL as SMALL_RESNET
from torch import Tensor
from unet_codecs import NONE, POLYPHASE, lossless

from codec.bitstream import BitstreamError
from codec.data.image_file import read_picture
from codec.learned_codec import LearnedCodec
from experiments.fuzz.fuzz import Outcome, fuzzed
from experiments.fuzz.image_samples import image_samples
from experiments.fuzz.mutations import edited, mutated_png
from experiments.fuzz.targets import (
    IMAGE_SUFFIXES,
    SOME_METADATA,
    STANDARD,
    Target,
    checkpoint_targets,
    image_target,
    learned_target,
    metadata_target,
    standard_target,
)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # Pillow warns of what it meets in damaged files
]

SEED = 0


def tiny(model: str, *overrides: str) -> LearnedCodec:
    return make_codec(model, overrides=overrides)


TINY = {
    "conv_baseline": (400, lambda: tiny("conv_baseline", "model.widths=[8,8]", "model.latent_channels=4")),
    "conv_enhanced": (200, lambda: tiny("conv_enhanced", "model.widths=[8,8,8]", "model.skip_channels=[1,2]")),
    "quantized_autoencoder": (
        200,
        lambda: tiny("quantized_autoencoder", *SMALL_RESNET, "model.latent_channels=16"),
    ),
    "conv_baseline, hyperprior": (100, lambda: tiny("conv_baseline", "prior=hyperprior", "prior.features=8")),
    "conv_enhanced, checkerboard": (60, lambda: tiny("conv_enhanced", "prior=checkerboard", "prior.features=8")),
    "conv_enhanced, channel_context": (
        60,
        lambda: tiny("conv_enhanced", "prior=channel_context", "prior.slices=2"),
    ),
    "diffusion": (100, lambda: tiny("diffusion")),
    "diffusion_iterative": (60, lambda: tiny("diffusion_iterative", "model.steps=1")),
    "comcnn_reccnn": (400, lambda: small("model.train_quality=[5,60]")),
    "comcnn_reccnn, WebP": (200, lambda: small("model.codec=webp")),
    "comcnn_reccnn, JPEG 2000": (200, lambda: small("model.codec=jpeg2000")),
    "lossless_unet": (120, lambda: lossless(NONE)),
    "lossless_unet_polyphase": (80, lambda: lossless(POLYPHASE)),
}


def fine(target: Target, count: int) -> Outcome:
    """The outcome, in which some mutations decoded and some were refused; the first failures fail the test."""
    outcome = fuzzed(target, count, SEED)
    if outcome.failures:
        told = [f"mutation {n}, {data[:200].hex()}: {what}" for n, data, what in outcome.failures[:5]]
        pytest.fail(f"{target.name}, seed {SEED}: {len(outcome.failures)} of {count}\n" + "\n".join(told))
    assert outcome.decoded > 0
    assert outcome.refused > count // 20
    return outcome


@pytest.mark.parametrize("name", TINY)
def test_a_mutated_file_decodes_or_is_refused(name: str, photograph: Tensor) -> None:
    count, make = TINY[name]
    outcome = fine(learned_target(name, make(), crop(photograph, 19, 22)), count)
    assert not any("checksum does not match" in reason for reason in outcome.reasons), "the CRC is not mended"
    assert len(outcome.reasons) > 5


@pytest.mark.parametrize("name", STANDARD)
def test_a_mutated_file_of_a_standard_codec_decodes_or_is_refused(name: str, photograph: Tensor) -> None:
    fine(standard_target(name, make_codec(name), crop(photograph, 19, 22)), 500)


def test_mutated_metadata_is_read_or_refused() -> None:
    assert SOME_METADATA.orientation() == 6
    fine(metadata_target(SOME_METADATA), 1000)


@pytest.mark.parametrize("n", [0, 1])
def test_a_mutated_checkpoint_loads_or_is_refused(n: int, tmp_path: Path) -> None:
    fine(list(checkpoint_targets(made(), tmp_path))[n], 150)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_mutated_image_is_read_or_refused(suffix: str, photograph: Tensor, tmp_path: Path) -> None:
    fine(image_target(suffix, crop(photograph, 19, 22), tmp_path), 250)


def test_the_images_that_are_mutated_have_all_that_a_picture_may_have(photograph: Tensor) -> None:
    image, met, lost = crop(photograph, 19, 22), set(), set()
    for suffix in IMAGE_SUFFIXES:
        for data in image_samples(suffix, image, SOME_METADATA):
            found = read_picture(io.BytesIO(data))
            met |= {*found.metadata.names()}
            lost |= {*found.not_kept}
    assert met == {"ICC profile", "EXIF", "XMP"}
    assert lost == {
        "transparency",
        "16-bit samples",
        "other 2 frames",
        "other 2 pages",
        "four inks",
        "YCbCr colours",
    }


def test_most_mutations_of_a_png_have_checksums_that_are_right(photograph: Tensor) -> None:
    (data, *_) = image_samples(".png", crop(photograph, 19, 22), SOME_METADATA)
    right = sum(has_right_checksums(mutated_png(data, Random(n))) for n in range(300))
    assert 200 < right < 300


def has_right_checksums(png: bytes) -> bool:
    position = 8
    while position < len(png):
        end = position + 8 + int.from_bytes(png[position : position + 4])
        if zlib.crc32(png[position + 4 : end]).to_bytes(4) != png[end : end + 4]:
            return False
        position = end + 4
    return True


def test_what_is_neither_decoded_nor_refused_is_kept_and_comes_again() -> None:
    def read(data: bytes) -> None:
        if len(data) < 8:
            raise KeyError(data)
        if data[0] != 1:
            raise BitstreamError("two\nlines" if data[0] == 2 else "another beginning")

    target = Target("faulty", lambda rng: edited(b"\1" * 8, rng), read, BitstreamError)
    first, again, other = fuzzed(target, 300, 1), fuzzed(target, 300, 1), fuzzed(target, 300, 2)
    assert first.failures == again.failures != other.failures
    kinds = {what.partition(":")[0] for _, _, what in first.failures}
    assert kinds == {"KeyError", "not one short line"}
    assert all(len(data) < 8 or data[0] == 2 for _, data, _ in first.failures)
    assert first.decoded > 0


def test_what_takes_too_much_time_or_memory_is_kept() -> None:
    def read(data: bytes) -> None:
        try:
            while data[0] == 1:
                pass
        except Exception as error:
            raise BitstreamError("refused") from error

    target = Target("slow", lambda rng: bytes([rng.randrange(2)]), read, BitstreamError)
    outcome = fuzzed(target, 6, SEED, most_seconds=0.1)
    assert outcome.decoded > 0
    assert outcome.decoded + len(outcome.failures) == 6
    assert outcome.refused == 0
    assert {data for _, data, _ in outcome.failures} == {b"\1"}
    assert all(what.startswith("too slow: ") for _, _, what in outcome.failures)
    # More than anything before it has had at its peak, which is what is counted.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    target = Target("large", lambda _: b"", lambda _: bytearray(b"x") * (peak + (1 << 26)) and None, BitstreamError)
    (failure,) = fuzzed(target, 1, SEED, most_seconds=600, most_mb=1).failures
    assert failure[2].startswith("too large: ")
