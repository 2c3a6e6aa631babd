"""In which precision a training computes: what `strategy.precision: auto` stands for on the machine it runs on."""

from typing import NamedTuple

import torch

from codec.networks.modes import has_bfloat16


class Precision(NamedTuple):
    """What Lightning's Trainer is given; as text, the line that says so and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"precision: {self.name}, {self.reason}"


def choose_precision(asked: str, accelerator: str) -> Precision:
    """`asked` itself or, where that is auto, bf16-mixed on a device with bfloat16 arithmetic and 32-true elsewhere.

    `asked` is one of `codec.training.config_checks.PRECISIONS`, `accelerator` Lightning's.
    """
    device = _device(accelerator)
    native = has_bfloat16(device)
    known = f"this {'CPU' if device == 'cpu' else 'GPU'} has {'' if native else 'no '}bfloat16 arithmetic"
    if asked == "auto":
        return Precision("bf16-mixed" if native else "32-true", f"since {known}")
    if asked.startswith("bf16") and not native:
        return Precision(asked, f"as configured, though {known}: 32-true is many times faster")
    quicker = f"; strategy.precision=auto takes bf16-mixed, since {known}" if asked == "32-true" and native else ""
    return Precision(asked, f"as configured{quicker}")


def _device(accelerator: str) -> str:
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"
