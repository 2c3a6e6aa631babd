"""Fixtures for weights that are fetched: a web server on this machine, and an empty folder of downloads.

PYTEST_DONT_REWRITE: it is a plugin that tests import from, too.
"""

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked_for.append(self.path)
        super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A web server on this machine; `folder` is what it serves, `asked_for` what was asked of it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as httpd:
        httpd.asked_for = []
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{httpd.server_port}"
        yield SimpleNamespace(folder=folder, url=url, asked_for=httpd.asked_for)
        httpd.shutdown()
        thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub will put what it downloads; not there yet."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "torch/hub/checkpoints"


def write_weights(folder: Path, state: object, digest: str | None = None) -> str:
    """Saves `state` the way torch.hub names files, NAME-HASH.pth; `digest` replaces the right hash."""
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / "unnamed"
    torch.save(state, unnamed)
    digest = digest or hashlib.sha256(unnamed.read_bytes()).hexdigest()[:8]
    return unnamed.rename(folder / f"weights-{digest}.pth").name


class Executes:
    """Unpickled without care, this makes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return Path.touch, (self.witness,)
