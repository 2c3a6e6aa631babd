"""What is mutated and how it is read: files of every codec, checkpoints and image files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from codec.bitstream import BitstreamError, Header, metadata_of, unpack
from codec.checkpoint import load_codec, load_pretrained, save_weights
from codec.data.image_file import ImageFileError, image_size, read_image, read_picture
from codec.data.image_formats import has_jxl
from codec.data.samples import SamplesSource
from codec.errors import CheckpointError
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.metadata import Metadata
from codec.pretrained import pretrained_models
from codec.training.paths import conf_folder
from experiments.fuzz.image_samples import image_samples
from experiments.fuzz.mutations import (
    edited,
    mutated_archive,
    mutated_file,
    mutated_metadata,
    mutated_png,
    mutated_safetensors,
)

STANDARD = ("jpeg", "webp", "avif", "jpegxl", "jpeg2000", "png")
IMAGE_SUFFIXES = (".png", ".jpg", ".webp", ".gif", ".tif", ".bmp", ".ppm", ".jp2", ".avif", ".jxl")
# A profile's beginning, a TIFF block with orientation 6, and a packet that repeats it.
SOME_METADATA = Metadata(
    icc=bytes(36) + b"acsp" + bytes(100),
    exif=b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>',
)
SIDE = 32  # of the images whose files are mutated


class Target(NamedTuple):
    """What is mutated and read: `mutate` makes a mutation with a random generator, `read` reads it.

    `read` may raise `refusal`, one short line, and nothing else: UnexpectedError if what it gets is not right.
    """

    name: str
    mutate: Callable[[Random], bytes]
    read: Callable[[bytes], None]
    refusal: type[Exception]


class UnexpectedError(Exception):
    """What was read is not what a file of its kind may give."""


def learned_target(name: str, codec: LearnedCodec, image: torch.Tensor) -> Target:
    """Files that a codec wrote of `image`, uint8 `[C, H, W]`, and of pieces and a grey version of it."""
    grey = image[:1].contiguous()
    images = [image, image[:, :7, :5].contiguous(), grey] if codec.image_channels == 3 else [grey, grey[:, :7, :5]]
    files = [codec.encode(image) for image in images]

    def read(data: bytes) -> None:
        decoded = codec.decode(data)
        header = unpack(data)[0]
        _expect(decoded.dtype == torch.uint8, f"decoded to {decoded.dtype}")
        _expect(
            decoded.shape == (header.channels, header.height, header.width), f"decoded to {list(decoded.shape)}"
        )

    return Target(name, lambda rng: mutated_file(rng.choice(files), rng, files), read, BitstreamError)


def metadata_target(metadata: Metadata) -> Target:
    """A file's metadata, which is read without its image."""
    header = Header("DIFF", bytes(4), 32, 32, 3)

    def read(data: bytes) -> None:
        found = metadata_of(data).upright()
        _expect(found.orientation() == 1, f"upright, but of orientation {found.orientation()}")

    return Target("metadata", lambda rng: mutated_metadata(header, metadata, rng), read, BitstreamError)


def standard_target(name: str, codec: ImageCodec, image: torch.Tensor) -> Target:
    """A standard codec's files of `image` in colour and grey."""
    files = [codec.encode(image), codec.encode(image[:1])]

    def read(data: bytes) -> None:
        decoded = codec.decode(data)
        _expect(decoded.dtype == torch.uint8, f"decoded to {decoded.dtype}")
        _expect(decoded.ndim == 3, f"decoded to {list(decoded.shape)}")

    return Target(name, lambda rng: edited(rng.choice(files), rng), read, BitstreamError)


def checkpoint_targets(codec: LearnedCodec, folder: Path) -> Iterator[Target]:
    """A codec's checkpoint, in both formats; `folder` is where the mutations lie while they are read."""
    save_weights(codec, folder / "whole.safetensors")
    torch.save({"model_config": codec.model_config, "state_dict": codec.state_dict()}, folder / "whole.ckpt")
    for suffix, mutated in ((".ckpt", mutated_archive), (".safetensors", mutated_safetensors)):
        whole, path = (folder / f"whole{suffix}").read_bytes(), folder / f"mutated{suffix}"

        def read(data: bytes, path: Path = path) -> None:
            path.write_bytes(data)
            load_codec(path)

        yield Target(
            f"checkpoint{suffix}",
            lambda rng, whole=whole, mutated=mutated: mutated(whole, rng),
            read,
            CheckpointError,
        )


def image_target(suffix: str, image: torch.Tensor, folder: Path) -> Target:
    """Image files of the format of `suffix`, read as `codec compress` does."""
    files = image_samples(suffix, image, SOME_METADATA)
    mutated = mutated_png if suffix == ".png" else edited
    path = folder / f"mutated{suffix}"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        image_size(path)
        found = read_picture(path)
        _expect(found.image.dtype == torch.uint8, f"read as {found.image.dtype}")
        _expect(found.image.shape[0] in (1, 3), f"read as {list(found.image.shape)}")
        _expect(found.metadata.orientation() == 1, f"upright, but of orientation {found.metadata.orientation()}")
        found.metadata.to_bytes()  # a .qnt file can hold it

    return Target(f"image{suffix}", lambda rng: mutated(rng.choice(files), rng), read, ImageFileError)


def all_targets(folder: Path) -> Iterator[Target]:
    """Those of the package: its models, the standard codecs, its smallest model's checkpoint, image files."""
    image = read_image(SamplesSource().images("test")[0], channels=3)[:, 100 : 100 + SIDE, 100 : 100 + SIDE]
    image = image.contiguous()
    for model in pretrained_models():
        yield learned_target(model.name, load_pretrained(model.at()), image)
    yield metadata_target(SOME_METADATA)
    for name in STANDARD:
        if name != "jpegxl" or has_jxl():
            config = OmegaConf.load(conf_folder() / "model" / f"{name}.yaml")
            yield standard_target(name, instantiate(config), image)
    smallest = min((model.at() for model in pretrained_models()), key=lambda weights: weights.size)
    yield from checkpoint_targets(load_pretrained(smallest), folder)
    for suffix in IMAGE_SUFFIXES:
        yield image_target(suffix, image, folder)


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise UnexpectedError(otherwise)
