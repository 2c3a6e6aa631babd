"""Errors that are raised where torch is not needed, and caught where it is."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, or is not there; the text is one line that says why."""


class MissingPackageError(ValueError):
    """A package that only an extra of pyproject.toml brings; the text is one line that says what to install."""
