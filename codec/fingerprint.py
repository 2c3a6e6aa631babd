"""Fingerprint: four bytes that name the very weights and tables of a module, and what it makes of them."""

import hashlib

import torch
from torch import nn


class Fingerprint:
    """Of one module, computed again only when a tensor has changed.

    A part whose decoding would not follow from its weights alone, as how it rounds them has changed since there are
    files, says in `arithmetic` how it does now.
    """

    def __init__(self) -> None:
        self._known: tuple[tuple, bytes] | None = None

    def of(self, tag: str, module: nn.Module) -> bytes:
        """That of `module` under its ASCII `tag`, 4 bytes."""
        state = module.state_dict()
        versions = tuple((tensor.data_ptr(), tensor._version) for tensor in state.values())
        if self._known is None or self._known[0] != versions:
            digest = hashlib.sha256(tag.encode())
            for name, part in module.named_modules():
                if arithmetic := getattr(part, "arithmetic", None):
                    digest.update(f"{name} {arithmetic}".encode())
            for name, tensor in sorted(state.items()):
                digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            self._known = (versions, digest.digest()[:4])
        return self._known[1]

    def forget(self) -> None:
        """After a change that tensors do not tell of."""
        self._known = None
