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
# Tensors from 2 MB on get pages of 2 MB where Linux has such: to fill pages of 4 kB anew for each tensor took up to
# a quarter of the time of coding. torch reads this when it makes its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from codec import pillow_plugin  # noqa: F401 - Pillow knows our files from here on
from codec.api import Codec, CodedImage, decode, load, models, open, register

__all__ = ["Codec", "CodedImage", "decode", "load", "models", "open", "register"]
