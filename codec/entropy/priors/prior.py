"""Prior: the probability model of a latent, as a walk through it in coding order."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from codec.entropy.rdoq import Targets
from codec.entropy.tables import CodingTables
from codec.entropy.walk import Code
from codec.networks.exact import ExactConv2d, ExactUpConv2d

Size = tuple[int, int]


class Prior(nn.Module, ABC):
    """The probability model of a latent, which is one tensor or a pyramid of them, coarse to fine.

    What it is told of a latent stands in its order: `levels`, whole numbers in float `[B, C, H, W]` (in training:
    not rounded yet; Targets where an encoder chooses them, see codec.entropy.rdoq), or None to a decoder; `sizes`,
    (B, H, W) of each; `quality`, `[B]`, 0–100, or None where there is one rate.

    Where neither training nor a gradient is at stake, a large latent is held once: a prior may write over levels
    what came of them, and gives those back.
    """

    can_be_fitted = False
    has_side_information = False

    @abstractmethod
    def visit(
        self,
        levels: Sequence[Tensor | Targets] | None,
        sizes: Sequence[tuple[int, int, int]],
        code: Code,
        quality: Tensor | None = None,
    ) -> list[Tensor]:
        """Calls `code` once for every decoding pass; returns the levels, as `code` gave them back."""

    def fit(self, levels: Sequence[Tensor], quality: Tensor | None = None) -> None:
        """Starts the prior by whole levels of several images, where `can_be_fitted`; others start as they are."""

    @abstractmethod
    def least_bits(self, sizes: Sequence[Size]) -> float:
        """What a latent of these (H, W) costs if every symbol is the likeliest of its table.

        A section that is shorter can be refused before memory is taken.
        """


class EncoderOnly(nn.Sequential):
    """A part of a prior that only an encoder runs: a decoder reads what came of it, so it may be inexact."""


def check_exact(prior: nn.Module) -> None:
    """Raises TypeError, naming the module, if one has weights that a decoder would not compute exactly with.

    All of a prior's are those of exact convolutions (codec.networks.exact), of coding tables, or EncoderOnly.
    """
    if not isinstance(prior, Prior):
        raise TypeError(f"{type(prior).__name__} is no Prior")
    open_modules = [("prior", prior)]
    while open_modules:
        name, module = open_modules.pop()
        if isinstance(module, ExactConv2d | ExactUpConv2d | CodingTables | EncoderOnly):
            continue
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_floating_point() for tensor in own):
            raise TypeError(f"{name} is a {type(module).__name__}, whose results differ between machines")
        open_modules.extend((f"{name}.{child}", part) for child, part in module.named_children())
