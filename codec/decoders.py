"""Which codec decodes a file: one of the package, one that was registered, or the one that is given."""

import threading
from typing import TYPE_CHECKING

from codec import bitstream, pretrained
from codec.bitstream import BitstreamError
from codec.pretrained import Weights

if TYPE_CHECKING:
    import torch

    from codec.learned_codec import LearnedCodec


class Decoders:
    """The codecs of files: `named`, if it is given, else pretrained ones, each loaded once, on `device`.

    Threads may share it.
    """

    def __init__(self, named: "LearnedCodec | None" = None, device: "str | torch.device" = "cpu") -> None:
        self._named = named
        self._device = device
        self._loaded: dict[bytes, LearnedCodec] = {}
        self._loading = threading.Lock()

    def of(self, data: bytes, partial: bool = False) -> "LearnedCodec":
        """The codec to decode a file with, of which, if `partial`, the end may be missing.

        Raises BitstreamError if none of those that are known wrote it.
        """
        if self._named is not None:
            return self._named
        fingerprint = bitstream.unpack(data, partial)[0].fingerprint
        if fingerprint in self._loaded:
            return self._loaded[fingerprint]
        weights = pretrained.written_by(fingerprint)
        if weights is None:
            raise BitstreamError(
                f"the file was written with weights {fingerprint.hex()}, those of no pretrained model: "
                "name what wrote it, by --checkpoint or codec.load(checkpoint=...)"
            )
        return self.of_weights(weights)

    def of_weights(self, weights: Weights) -> "LearnedCodec":
        """The codec of pretrained weights, at their own quality. Raises CheckpointError if they are damaged."""
        from codec.checkpoint import load_pretrained

        fingerprint = bytes.fromhex(weights.fingerprint)
        with self._loading:
            if fingerprint not in self._loaded:
                self._loaded[fingerprint] = load_pretrained(weights).to(self._device)
            return self._loaded[fingerprint]

    def add(self, learned: "LearnedCodec") -> None:
        """Has files of this codec decoded by it."""
        self._loaded[learned.fingerprint()] = learned


DECODERS = Decoders()  # of whatever is decoded without a codec being named
