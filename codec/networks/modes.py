"""Modes that code runs in: modules' training and evaluation, arithmetic that can be repeated, or is quick."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, nn

# Levels that ONEDNN_MAX_CPU_ISA can hold oneDNN to, which convolves on CPUs, and at which it emulates bfloat16.
_EMULATED_AT = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")

_rounds: ContextVar[bool] = ContextVar("rounds", default=True)
_ON_A_GPU = threading.RLock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, all of `module` is in evaluation mode; afterwards each of its parts in that which it was in."""
    modes = [(part, part.training) for part in module.modules()]
    if any(training for _, training in modes):
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:  # not train(True): a part may have been frozen by itself
            if part.training != training:  # to set what a module is takes ten times as long as to ask
                part.training = training


@contextmanager
def repeatable(device_type: str) -> Iterator[None]:
    """Inside, full precision, and of a GPU's kernels those that give the same every time."""
    kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    # These flags are the process's: of several threads one codes on a GPU at a time.
    alone = nullcontext() if device_type == "cpu" else _ON_A_GPU
    with alone, torch.autocast(device_type, enabled=False), kernels:
        yield


@contextmanager
def roughly(module: nn.Module, device_type: str) -> Iterator[None]:
    """Inside, what need not be exact is found in bfloat16, on CPUs where that is quicker.

    So it is in evaluation, without a gradient. An encoder need not be: its last projections in float32, `module`'s
    images were seen to lose a hundredth of a dB.
    """
    wanted = in_codes(module) and device_type == "cpu" and torch.backends.mkldnn.enabled
    with torch.autocast("cpu", torch.bfloat16) if wanted and has_bfloat16("cpu") else nullcontext():
        yield


def in_codes(module: nn.Module) -> bool:
    """Whether what need not be exact is found of codes: in evaluation, without a gradient."""
    return _rounds.get() and not module.training and not torch.is_grad_enabled()


@contextmanager
def never_roughly() -> Iterator[None]:
    """Inside, `roughly` changes nothing and `in_codes` is False.

    What is compared with values that have a gradient is found as they are.
    """
    token = _rounds.set(False)
    try:
        yield
    finally:
        _rounds.reset(token)


def quick_layout(x: Tensor) -> Tensor:
    """`x` for a network: on a CPU that only infers, channels last, which all its layers then pass on."""
    if x.device.type == "cpu" and not torch.is_grad_enabled():
        return x.contiguous(memory_format=torch.channels_last)
    return x


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
