"""`codec compress --batch`: images of equal size through the network together, as if it were one by one."""

import re
import sys
from pathlib import Path

import pytest
import torch
from cli_files import NARROW, files, one_line, picture, runner
from conftest import make_codec

from codec.checkpoint import save_weights
from codec.cli import progress
from codec.learned_codec import LearnedCodec

pytestmark = pytest.mark.usefixtures("here")


def folder() -> None:
    """Three of one size, one of another, and one that is no image."""
    for n, size in enumerate([(23, 17), (40, 30), (23, 17), (23, 17)]):
        picture(f"in/{n}.png", size, seed=n)
    Path("in/1b.png").write_text("no image")


def batches_seen(codec: type[LearnedCodec], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of images with every call of the analysis transform."""
    seen, g_a = [], codec.g_a

    def counted(self: LearnedCodec, x: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(x))
        return g_a(self, x)

    monkeypatch.setattr(codec, "g_a", counted)
    return seen


@pytest.mark.parametrize("jobs", [1, 2])
def test_files_and_what_is_said_of_them_are_those_of_one_by_one(
    jobs: int, run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder()
    seen = batches_seen(type(codec), monkeypatch)
    status, said, complained = run("compress", "in", "alone", "--verify")
    assert (status, seen) == (1, [1] * 4)
    seen.clear()
    again = run("compress", "in", "out", "--batch", 8, "--jobs", jobs, "--verify")
    assert again == (1, said.replace("alone/", "out/"), complained)
    assert sorted(seen) == ([1, 3] if jobs == 1 else [1, 1, 2])
    assert files("out") == ["0.qnt", "1.qnt", "2.qnt", "3.qnt"]
    for name in files("out"):
        assert Path("out", name).read_bytes() == Path("alone", name).read_bytes()


def test_on_a_cpu_it_is_one_by_one_unless_asked_for(
    run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder()
    seen = batches_seen(type(codec), monkeypatch)
    run("compress", "in", "out")
    assert seen == [1] * 4
    seen.clear()
    run("compress", "in", "out", "--force", "--batch", 4)
    assert sorted(seen) == [1, 1, 2]


def test_where_a_batch_fails_each_fails_or_not_by_itself(capsys: pytest.CaptureFixture) -> None:
    codec = make_codec("conv_baseline", overrides=NARROW)
    with torch.no_grad():  # inf − inf: nan
        codec.encoder[-3][1].weight.fill_(3e38)
        codec.encoder[-3][1].running_mean.fill_(-100)
        codec.encoder[-1].weight[:, ::2], codec.encoder[-1].weight[:, 1::2] = 1, -1
    save_weights(codec, "broken.safetensors")
    folder()
    status, out, err = runner(capsys, Path("broken.safetensors"))("compress", "in", "out", "--batch", 8)
    assert (status, out) == (1, "")
    *lines, last = err.splitlines()
    assert [line.split(":")[1] for line in lines] == [f" in/{n}.png" for n in ("0", "1", "1b", "2", "3")]
    # By bytes the weights are refused, by floats what they give.
    assert sum("the latent holds nan" in line or "they are not usable" in line for line in lines) == 4
    assert last == "codec: 5 of 5 files failed"


def test_a_bar_shows_how_much_of_a_batch_is_done(
    run, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder()
    monkeypatch.setattr(progress, "_AFTER", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    err = run("compress", "in", "out", "--batch", 8)[2]
    shown = [int(share) for share in re.findall(r"\r\[[#.]{40}\] +(\d+)%", err)]
    assert shown == sorted(shown)
    assert {25, 50, 75, 100} <= set(shown)


def test_a_batch_of_no_images_is_refused(run) -> None:
    picture("a.png")
    status, _, err = run("compress", "a.png", "a.qnt", "--batch", 0)
    assert status == 2
    assert one_line(err) == "codec: error: --batch 0: allowed are the integers from 1"


@pytest.mark.gpu
def test_on_a_gpu_images_of_equal_size_go_together(
    run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder()
    seen = batches_seen(type(codec), monkeypatch)
    assert run("compress", "in", "out", "--device", "cuda")[0] == 1
    assert sorted(seen) == [1, 3]
    assert run("decompress", "out", "back")[0] == 0
    assert files("back") == ["0.png", "1.png", "2.png", "3.png"]
