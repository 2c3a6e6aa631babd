"""What this package is called where packages are installed from; `quintet` there is somebody else's."""

NAME = "quintet-codec"


def install(extra: str) -> str:
    """The command that installs what an extra of pyproject.toml brings."""
    return f"pip install '{NAME}[{extra}]'"


def version() -> str | None:
    """The version that is installed, None where the code is used without an installation."""
    from importlib.metadata import PackageNotFoundError  # reads like e-mail, which every `codec` would wait for
    from importlib.metadata import version as installed_version

    try:
        return installed_version(NAME)
    except PackageNotFoundError:
        return None
