"""ImageNet weights that torchvision publishes: fetched once, verified, and refused in one line if they are not."""

import pickle
import re
from http.client import HTTPException
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url

from codec.errors import ArgumentError


def load_pretrained(
    module: nn.Module, url: str, prefix: str, what: str, otherwise: str, key: str = "pretrained", value: Any = True
) -> None:
    """Loads into `module` those of the weights at `url` whose names start with `prefix`.

    The file is kept in torch.hub's folder; the SHA-256 of what is downloaded must begin with the hexadecimal digits
    at the end of its name (`-<digits>.pth`). Raises ArgumentError, one line that begins with `key`, which has
    `value`, names `what`, and ends with what to set `otherwise`.
    """
    try:
        if not re.search(r"-[0-9a-f]{8,}\.[^/.]*$", url):
            raise ValueError("its name has no hash at its end to check it by")  # noqa: TRY301
        state = load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        chosen: dict[str, Tensor] = {
            name: state[prefix + name]
            for name in module.state_dict()
            # BatchNorm counted no batches when torchvision's older files were written
            if prefix + name in state or not name.endswith("num_batches_tracked")
        }
        module.load_state_dict(chosen)
    except (
        URLError,
        HTTPException,
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise ArgumentError(
            key,
            value,
            f"{what}'s weights could not be fetched from {url} ({_reason(error)}); go online once, put the file "
            f"into {torch.hub.get_dir()}/checkpoints, or set {otherwise}",
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's text tells how to run the code in it: not repeated
        return "its pickle is damaged or holds code"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
