"""For how much of a stretch of work its device computes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def busy_seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds in which at least one kernel or copy runs on a GPU, or one of torch's operations on a CPU."""
    on_gpu = device.type == "cuda"
    activity, kind = (ProfilerActivity.CUDA, DeviceType.CUDA) if on_gpu else (ProfilerActivity.CPU, DeviceType.CPU)
    with profile(activities=[activity]) as recorded:
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
    events = (e for e in recorded.events() if e.device_type == kind and not e.is_user_annotation)
    return covered((e.time_range.start, e.time_range.end) for e in events) / 1e6


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what is in at least one of the spans, (start, end)."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length
