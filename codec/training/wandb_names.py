"""The mode that W&B is asked for, and names as it takes them: too long ones or odd characters are replaced."""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from codec.checks import check_choice

NAME_LENGTH, TAG_LENGTH = 128, 64
# W&B makes an artifact of each table, called run-<id>-<table>-<six characters>, of 128 in all.
ID_LENGTH = 96


def asked_wandb_mode() -> str | None:
    """What the environment variable WANDB_MODE asks for; None without it. Raises ArgumentError on others."""
    asked = os.environ.get("WANDB_MODE") or None
    asked = {"dryrun": "offline", "run": "online"}.get(asked, asked)  # as W&B called them once
    if asked is not None:
        check_choice("WANDB_MODE", asked, ("online", "offline", "disabled", "shared"))
    return asked


def valid_names(arguments: dict[str, Any]) -> dict[str, Any]:
    """What `wandb.init` is asked for, with names that it takes; changes of those that a user chooses are told."""
    group = arguments["group"]
    valid = {
        "project": project(arguments["project"]),
        "group": None if group is None else shortened(group),
        "tags": tags(arguments["tags"]),
    }
    for key, value in valid.items():
        if value != arguments[key] and arguments["mode"] != "disabled":
            print(f"W&B: {key}={arguments[key]} becomes {value}, which W&B takes", file=sys.stderr)
    name, job_type = (shortened(arguments[key]) for key in ("name", "job_type"))
    return {**arguments, **valid, "id": run_id(arguments["id"]), "name": name, "job_type": job_type}


def run_id(name: str) -> str:
    """An id for the run called `name`: the name itself if it can be one, else what is left of it and a hash.

    Plain characters only: the id is part of file names, whose length counts bytes.
    """
    plain = re.sub(r"[^\w.=+ -]", "-", name, flags=re.ASCII).strip()
    if plain == name and len(name) <= ID_LENGTH:
        return name
    digest = _hash(name)
    return f"{plain[: ID_LENGTH - len(digest) - 1]}-{digest}"


def project(name: str) -> str:
    """A project's name, without what would cut its address."""
    return shortened(re.sub(r"[/\\#?%:\r\n]", "-", name), NAME_LENGTH)


def tags(names: Sequence[object]) -> list[str]:
    """Those that are not empty, each once."""
    return list(dict.fromkeys(shortened(str(name), TAG_LENGTH) for name in names if str(name)))


def shortened(text: str, length: int = NAME_LENGTH) -> str:
    """`text`, or of a longer one its beginning and a hash of it all, `length` characters together."""
    if len(text) <= length:
        return text
    digest = _hash(text)
    return f"{text[: length - len(digest) - 2]}… {digest}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
