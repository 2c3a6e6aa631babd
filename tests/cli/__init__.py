"""Tests of the command `codec`; a package, so that its conftest.py stands beside the other."""
