"""Quintet: learned image codecs as Lightning modules, measured on the bytes that land on disk."""

import os

# Threads that wait without spinning: beside another busy process, training is about six times faster so. torch's
# threads are told when torch is imported, so every command imports this package before it; processes that it starts
# inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
