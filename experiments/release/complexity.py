"""How large a codec is, and how much its networks multiply: what a model card calls complexity."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from codec.learned_codec import LearnedCodec


class Complexity(NamedTuple):
    """`parameters` are counted one by one; the other two are multiply-adds a pixel."""

    parameters: int
    encode_macs: int
    decode_macs: int


def complexity(codec: LearnedCodec, image: Tensor) -> Complexity:
    """Of the codec as it is set, by a file of `image`, uint8 `[C, H, W]`.

    Counted are convolutions and matrix products, backward ones too where encoding takes them. Not counted are the
    entropy coder and standard codecs, in which PyTorch has no part, and work on single values: activations,
    normalisations, lifting steps of a wavelet. What a file takes whatever its size, as learning what levels are
    worth from a corner of the image, makes small images dearer. In a grey image, or one of a single colour, a
    lossless codec has less to do.
    """
    parameters = sum(parameter.numel() for parameter in codec.parameters())
    codec.decode(codec.encode(image[:, :16, :16]))  # what is tried or made once is not counted
    with FlopCounterMode(display=False, custom_mapping=_of_bytes()) as encoding:
        data = codec.encode(image)
    with FlopCounterMode(display=False, custom_mapping=_of_bytes()) as decoding:
        codec.decode(data)
    pixels = image.shape[1] * image.shape[2]
    counters = (encoding, decoding)
    return Complexity(parameters, *(round(counter.get_total_flops() / 2 / pixels) for counter in counters))


def _of_bytes() -> dict[Any, Callable[..., int]]:
    """The formula of convolutions of bytes (see codec.networks.eight_bit), which PyTorch's counter lacks."""

    def flops(x: list[int], *others: Any, out_shape: list[int]) -> int:
        _scale, _zero, weight, *_ = others
        return conv_flop_count(x, weight, out_shape)

    convolution = getattr(torch.ops.onednn, "qconv2d_pointwise", None)
    return {} if convolution is None else {convolution: flops}


def as_large_as_kodak(photograph: Tensor) -> Tensor:
    """768×512 pixels of `photograph`, uint8 `[C, H, W]`, which mirrored beyond its edges is no smaller."""
    height, width = photograph.shape[-2:]
    beyond = (0, max(0, 768 - width), 0, max(0, 512 - height))
    return F.pad(photograph.float(), beyond, mode="reflect")[:, :512, :768].byte()
