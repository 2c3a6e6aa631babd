"""Quintet: learned image codecs as Lightning modules, measured on the bytes that land on disk."""
