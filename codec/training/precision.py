"""In which precision a training computes: what `strategy.precision: auto` stands for on the machine it runs on."""

import os
from typing import NamedTuple

import torch

# Levels that ONEDNN_MAX_CPU_ISA can hold oneDNN to, which convolves on CPUs, and at which it emulates bfloat16.
_EMULATED_AT = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


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
        return Precision(asked, f"as asked, though {known}: 32-true is many times faster")
    return Precision(asked, "as asked")


def has_bfloat16(device: str) -> bool:
    """Whether a device, cpu, cuda or mps, multiplies bfloat16 itself; emulated it is ten times slower than float32.

    Where it is not known to be fast, as on ARM, the answer is no.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu" or os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _EMULATED_AT:
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _device(accelerator: str) -> str:
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"
