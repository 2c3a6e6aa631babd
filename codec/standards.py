"""The standard codecs, each by the one number that sets its rate, and how coarse that makes its quantiser."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from codec.baselines import Avif, Jpeg, Jpeg2000, PillowCodec, WebP
from codec.errors import ArgumentError


class Standard(NamedTuple):
    """A standard codec by the one number that sets its rate, an integer from `lowest` to `highest`.

    `log_step` of that number: about log2 of the quantiser step, over that of JPEG's quality 50. `options` are
    further arguments that `make` takes.
    """

    make: Callable[..., PillowCodec]
    lowest: int
    highest: int
    log_step: Callable[[int], float]
    options: tuple[str, ...] = ()

    def with_options(self, options: Mapping[str, Any]) -> "Standard":
        """The codec with values of some of `options`. Raises ArgumentError, naming `codec_options`, on others."""
        if not isinstance(options, Mapping) or not set(options) <= set(self.options):
            allowed = f"null and values of {', '.join(self.options)}" if self.options else "null, of this codec"
            raise ArgumentError("codec_options", options, f"allowed are {allowed}")
        return self._replace(make=partial(self.make, **options)) if options else self


def jpeg_log_step(quality: int) -> float:
    """By libjpeg's formula; quality 1 to 99."""
    return math.log2(50 / quality if quality < 50 else (100 - quality) / 50)


# Of AVIF and JPEG 2000, what gives Kodak the PSNR that it has with such a step of JPEG's, 2.45 dB less an octave.
STANDARDS = {
    "jpeg": Standard(Jpeg, 1, 95, jpeg_log_step, ("subsampling", "progressive")),
    "webp": Standard(WebP, 0, 100, lambda quality: jpeg_log_step(min(max(quality, 1), 95))),
    "avif": Standard(Avif, 0, 100, lambda quality: (34 - quality) / 12.5, ("speed", "subsampling", "tune")),
    "jpeg2000": Standard(Jpeg2000, 1, 255, lambda ratio: 1.5 * math.log2(ratio / 48)),
}
