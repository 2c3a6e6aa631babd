"""Where that lies which is no code: beside the package in a checkout, inside it where a wheel is installed."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_folder() -> Path:
    """The tree of configs."""
    checkout = _PACKAGE.parent / "conf"
    return checkout if (checkout / "train.yaml").is_file() else _PACKAGE / "conf"


def checkout() -> Path | None:
    """The folder of the checkout that this package is part of; None of an installed wheel."""
    return None if conf_folder().parent == _PACKAGE else conf_folder().parent


def entry_command(name: str) -> list[str]:
    """What follows `python` on a command line that runs the entry point `train` or `evaluate`.

    In a checkout that is the script, as one would type it here; of a wheel, the module.
    """
    if checkout() is None:
        return ["-m", f"codec.training.{name}"]
    script = checkout() / f"{name}.py"
    return [str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)]
