"""What tells the jobs of a sweep apart, as W&B and the status table name them."""

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from codec.sweep import Sweep

_LENGTH = 128  # W&B refuses longer names


def what_differs(overrides: Sequence[str], sweep: str | Path) -> list[str]:
    """Those of a job's `overrides` that the sweep recorded in the folder `sweep` varies; without any, all."""
    try:
        swept = swept_keys(Sweep.read(sweep).command)
    except ValueError:  # its launcher keeps no record
        swept = set()
    return [override for override in overrides if _key(override) in swept] or list(overrides)


def swept_keys(command: str) -> set[str]:
    """The keys to which a command line gives several values: {"model"} of `train.py -m model=a,b epochs=3`."""
    typed = [word for word in shlex.split(command) if re.match(r"(?!hydra)[+~\w][\w.@/]*=", word)]
    parsed = OverridesParser.create().parse_overrides(typed)
    return {_key(override.input_line) for override in parsed if override.is_sweep_override()}


def shortened(text: str) -> str:
    """`text`, or of a longer one than W&B takes its beginning and a hash of it all."""
    if len(text) <= _LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: _LENGTH - len(digest) - 2]}… {digest}"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
