"""How much of an image there is in a file whose end is missing or that is damaged."""

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from codec.cli.parts import Part
from codec.coded_image import CodedImage

if TYPE_CHECKING:  # torch is imported only where an image is coded
    from codec.entropy.trace import Pass
    from codec.learned_codec import LearnedCodec


class Counted:
    """Counts the symbols that are decoded for a `part` of `file` in a `with` block, if it is cut or damaged."""

    def __init__(self, learned: "LearnedCodec", file: CodedImage, part: Part) -> None:
        self.learned, self.file, self.part = learned, file, part
        self._there = Counter[str]()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self.file.cut:
            from codec.entropy.trace import traced

            self._stack.enter_context(traced(self._count))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def said(self) -> str:
        """What is there of the levels that the image takes, and at which scale none of them is missing."""
        learned = self.learned
        sizes = learned.latent_sizes(learned.padded(self.file.height, self.file.width))
        if self.part.scale > 1:
            sizes = sizes[: learned.tensors_of_scale(self.part.scale)]
        of_tensors = [c * h * w for c, (h, w) in zip(learned.bottleneck.channels, sizes, strict=False)]
        there = [self._there[f"y_{n}" if n else "y"] for n in range(len(sizes))]
        share = sum(there) / sum(of_tensors)
        if share == 1:
            return "all that the image takes is there"
        whole = [
            scale
            for scale in learned.scales
            if scale > self.part.scale and there[: (n := learned.tensors_of_scale(scale))] == of_tensors[:n]
        ]
        offered = whole and self.part.crop is None  # --crop takes no other scale
        at = f", and all of them at --scale {min(whole)}" if offered else ""
        return f"{self.file.bytes:,} bytes are there, {100 * share:.1f} % of its levels{at}"

    def _count(self, one: "Pass") -> None:
        if one.decoded is not None:
            self._there[one.part] += one.symbols
