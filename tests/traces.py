"""Traces of decoding that tests compare between kernels, processes and devices.

No more is imported than processes need that make them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path

import torch

from codec.bitstream import BitstreamError
from codec.checkpoint import load_codec
from codec.entropy.trace import Pass, traced
from codec.learned_codec import LearnedCodec


def traces(folder: Path) -> dict[str, list[list]]:
    """The trace of every `.qnt` there with the `.safetensors` beside it, by "file, kernels"."""
    found = {}
    for file in sorted(folder.glob("*.qnt")):
        codec = load_codec(file.with_suffix(".safetensors"))
        for kernels, setting in KERNELS.items():
            with setting(codec):
                found[f"{file.stem}, {kernels}"] = list(map(list, trace_of(codec, file.read_bytes())))
    return found


def trace_of(codec: LearnedCodec, data: bytes) -> list[Pass]:
    """As far as decoding comes."""
    passes: list[Pass] = []
    with traced(passes.append), suppress(BitstreamError):
        codec.decode(data)
    return passes


def first_difference(ours: list[Pass], theirs: list[Pass]) -> int | None:
    """The number, from 0, of the first pass that differs; None: none does."""
    return next((n for n, (a, b) in enumerate(zip_longest(ours, theirs)) if a != b), None)


@contextmanager
def _as_they_are(codec: LearnedCodec) -> Iterator[None]:
    yield


@contextmanager
def _without_onednn(codec: LearnedCodec) -> Iterator[None]:
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@contextmanager
def _channels_last(codec: LearnedCodec) -> Iterator[None]:
    codec.to(memory_format=torch.channels_last)
    yield
    codec.to(memory_format=torch.contiguous_format)


KERNELS: dict[str, Callable] = {
    "as they are": _as_they_are,
    "without oneDNN": _without_onednn,
    "channels last": _channels_last,
}
