"""A tiny checkpoint for all tests of `codec`, and the command run with it."""

from pathlib import Path

import pytest
from cli_files import runner, tiny_checkpoint

from codec.checkpoint import load_codec
from codec.learned_codec import LearnedCodec


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def codec(checkpoint: Path) -> LearnedCodec:
    return load_codec(checkpoint)


@pytest.fixture
def run(checkpoint: Path, capsys: pytest.CaptureFixture):
    return runner(capsys, checkpoint)
