"""The site is built as `make docs` builds it: strictly, so that a dead link or an unresolved reference fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)[^)\s#]+")
PARTS = [path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("*/*.yaml")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_links_between_pages_lead_somewhere_in_the_repository_too() -> None:
    links = [
        (page, link) for page in (ROOT / "docs").rglob("*.md") for link in LINK.findall(page.read_text("utf-8"))
    ]
    assert len(links) > 50
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_menu(site: Path) -> None:
    written = [path for suffix in ("md", "ipynb") for path in (ROOT / "docs").rglob(f"*.{suffix}")]
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in written}
    home = (site / "index.html").read_text(encoding="utf-8")
    assert len(pages) >= 22
    for page in pages:
        assert (site / page).is_file()
        assert f'href="{page.as_posix()}"' in home


def test_every_command_and_every_option_is_in_the_reference(site: Path) -> None:
    page = text(site / "reference/cli.html")
    for name in (
        "codec compress",
        "codec models",
        "python -m codec.sweeps.status",
        "python -m experiments.plots.curves",
    ):
        assert name in page
    for option in ("--max-bytes", "--skip-existing", "--published", "--watch"):
        assert option in page


def test_every_config_file_is_in_the_reference(site: Path) -> None:
    page = (site / "reference/config.html").read_text(encoding="utf-8")
    assert len(PARTS) >= 75
    for part in PARTS:
        assert f'id="{part.parent.as_posix()}-{part.stem}"' in page


def test_the_layout_of_a_file_and_the_classes_are_in_the_reference(site: Path) -> None:
    assert "format version, 2" in text(site / "reference/file_format.html")
    page = (site / "reference/python.html").read_text(encoding="utf-8")
    for name in ("codec.image_codec.ImageCodec.encode", "codec.search.encode_to", "codec.errors.UserError"):
        assert f'id="{name}"' in page


def test_tables_cards_and_sources_that_a_page_names_are_pages(site: Path) -> None:
    for page in ("experiments/results/diffusion", "codec/pretrained/diffusion_wavelet", "codec/networks/exact.py"):
        assert (site / f"{page}.html").is_file()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8")
        )
        assert not loaded, page
