"""Quintet: learned image codecs as Lightning modules, measured on the bytes that land on disk.

import codec

c = codec.load("diffusion_wavelet", quality=50)
data = c.encode(image)
image = c.decode(data)
"""

import os

# Threads that wait without spinning: beside another busy process, training is about six times faster so. torch's
# threads are told when torch is imported, so every command imports this package before it; processes that it starts
# inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from codec import pillow_plugin  # noqa: F401 - Pillow knows our files from here on
from codec.allocator import keep_freed_memory
from codec.api import decode, load, models, open, register

keep_freed_memory()

__all__ = ["decode", "load", "models", "open", "register"]
