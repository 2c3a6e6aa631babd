"""The page of licences names every package under a copyleft licence that an installation brings along."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, requires

from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from codec.errors import DISTRIBUTION

PAGE = (ROOT / "docs/licences.md").read_text(encoding="utf-8")


def brought(requirements: list[str]) -> set[str]:
    """The names of all packages here that these requirements bring, and theirs, without extras nobody asks for."""
    found: set[str] = set()
    todo = [Requirement(line) for line in requirements]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in found or name == DISTRIBUTION or not wanted:
            continue
        try:
            todo += map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue  # of an extra that is not installed
        found.add(name)
    return found


def copyleft(name: str) -> bool:
    about = metadata(name)
    said = [about.get("License-Expression", ""), about.get("License", "").partition("\n")[0]]
    said += [line for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    return re.search(r"GPL|General Public|MPL|Mozilla|EUPL|CDDL", " ".join(said)) is not None


def test_every_package_under_a_copyleft_licence_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    every = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    found = {name for name in brought(every) if copyleft(name)}
    assert {"torchac", "tqdm", "certifi"} <= found
    assert {name for name in found if name not in PAGE} == set()
    assert "rawpy" in PAGE  # whose licence is MIT, but not that of LibRaw, which its wheels hold
