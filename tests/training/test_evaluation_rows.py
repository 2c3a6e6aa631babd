"""An evaluation loses nothing: rows are kept as they come, and one image costs the others nothing."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from checkpoints import made
from conftest import make_codec
from PIL import Image
from torch import Tensor

from codec.baselines import Jpeg, WebP
from codec.data.folder import FolderSource
from codec.data.image_file import ImageFileError, NamedImage, read_image
from codec.data.module import ImageDataModule
from codec.image_codec import ImageCodec
from codec.measure import Measured, measure
from codec.training.config import ConfigError
from codec.training.evaluation import evaluate_into
from codec.training.measured_rows import FILE, MeasuredRows
from codec.training.results import read_results

NAMES = ["a.png", "b.png", "c.png", "d.png"]


class Stopped:
    """Stands in the place of `measure`; is interrupted, or out of memory, once it has measured `after` images."""

    def __init__(self, after: int | None = None, fault: Callable[[], BaseException] = KeyboardInterrupt) -> None:
        self.after, self.fault, self.names = after, fault, []

    def __call__(self, codec: ImageCodec, item: NamedImage, *options: object) -> Measured:
        if len(self.names) == self.after:
            self.after = None
            raise self.fault()
        self.names.append(item.name)
        return measure(codec, item, *options)


def evaluated(photos: Path, run: Path, stopped: Stopped | None = None, **options: Any) -> dict[str, Any]:
    """What results.json holds of the photos as JPEGs, measured into `run`."""
    with patch("codec.measure.measure", stopped or Stopped()):
        return evaluate_into(run, Jpeg(quality=50), images(photos), {}, **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, name in enumerate(NAMES):
        picture(folder / name, n)
    return folder


def picture(path: Path, seed: int, size: tuple[int, int] = (16, 24)) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def images(photos: Path) -> ImageDataModule:
    return ImageDataModule(None, FolderSource(str(photos)), num_workers=0)


def test_a_measurement_that_was_cut_short_goes_on_after_its_last_image(photos: Path, tmp_path: Path) -> None:
    run, cut = tmp_path / "run", Stopped(after=2)
    with pytest.raises(KeyboardInterrupt):
        evaluated(photos, run, cut)
    assert len((run / FILE).read_text().splitlines()) == 1 + 2
    again = Stopped()
    results = evaluated(photos, run, again)
    assert (cut.names, again.names) == (NAMES[:2], NAMES[2:])
    assert [line.split(",")[0] for line in (run / "per_image.csv").read_text().splitlines()] == ["name", *NAMES]
    whole = evaluated(photos, tmp_path / "whole")
    exact = ("images", "bpp", "psnr", "ssim", "psnr_of_mean_mse")
    assert {key: results[key] for key in exact} == {key: whole[key] for key in exact}
    assert {path.name for path in run.iterdir()} == {"per_image.csv", "results.json"}


def test_after_the_last_image_only_the_results_are_missing(photos: Path, tmp_path: Path) -> None:
    class Refusing:
        def log_metrics(self, *_: object, **__: object) -> None:
            raise OSError("no room")

    run, again = tmp_path / "run", Stopped()
    with pytest.raises(OSError, match="no room"):
        evaluated(photos, run, loggers=[Refusing()])
    assert evaluated(photos, run, again)["images"] == 4
    assert again.names == []


def test_an_image_that_has_changed_is_measured_again(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluated(photos, tmp_path / "run", Stopped(after=2))
    picture(photos / "b.png", 9)
    again = Stopped()
    evaluated(photos, tmp_path / "run", again)
    assert again.names == NAMES[1:]


def test_rows_of_other_weights_do_not_count(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = MeasuredRows(tmp_path, {"weights": "a", "commit": "c"})
    rows.add({"name": "x", "psnr": 1.0}, Path(__file__), None)
    rows.close()
    MeasuredRows(tmp_path, {"weights": "b", "commit": "c"}).close()
    assert capsys.readouterr().err == "measured again: 1 image, as weights changed meanwhile\n"
    assert MeasuredRows(tmp_path, {"weights": "b", "commit": "c"}).entries == {}


@pytest.mark.parametrize("end", [b'{"row": {"na', b"\0" * 9])
def test_a_row_that_a_kill_has_cut_is_left_out(end: bytes, tmp_path: Path, photograph: Tensor) -> None:
    here = Path(__file__)
    rows = MeasuredRows(tmp_path, {"weights": None})
    rows.add({"name": "x", "psnr": float("inf")}, here, photograph)
    rows.close()
    with (tmp_path / FILE).open("ab") as file:
        file.write(end)
    for name in ("y", "z"):
        rows = MeasuredRows(tmp_path, {"weights": None})
        rows.add({"name": name, "psnr": 0.1}, here, None)
        rows.close()
    rows = MeasuredRows(tmp_path, {"weights": None})
    assert [rows.of(name, here) for name in "xyz"] == [
        {"name": "x", "psnr": float("inf")},
        {"name": "y", "psnr": 0.1},
        {"name": "z", "psnr": 0.1},
    ]
    assert rows.thumbnail("x").equal(photograph)
    assert rows.thumbnail("y") is None


def test_an_image_that_the_format_cannot_hold_is_named_before_and_left_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    picture(photos / "c.png", 0, (1, 17000))
    results = evaluate_into(tmp_path / "run", WebP(quality=50), images(photos), {})
    reason = "width=17000: WEBP allows 1 to 16383 pixels"
    assert f"left out: c.png: {reason}\n" in capsys.readouterr().err
    assert results["images"] == 3
    assert read_results(tmp_path / "run/results.json")["skipped"] == {"c.png": reason}


def test_where_no_image_is_left_it_says_why(photos: Path, tmp_path: Path) -> None:
    for name in NAMES:
        picture(photos / name, 0, (1, 17000))
    with pytest.raises(ConfigError, match=r"of 4 images none can be measured, a.png: width=17000: WEBP allows"):
        evaluate_into(tmp_path / "run", WebP(quality=50), images(photos), {})
    assert not (tmp_path / "run/results.json").exists()


def test_an_image_that_does_not_fit_into_memory_is_left_out(photos: Path, tmp_path: Path) -> None:
    results = evaluated(photos, tmp_path / "run", Stopped(1, MemoryError))
    assert (results["images"], results["skipped"]) == (3, {"b.png": "it does not fit into memory"})


def test_an_image_that_cannot_be_read_any_more_is_left_out(photos: Path, tmp_path: Path) -> None:
    data = images(photos)
    data.setup("test")
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:300])
    with pytest.raises(ImageFileError):
        read_image(photos / "b.png")
    results = evaluate_into(tmp_path / "run", Jpeg(quality=50), data, {})
    assert results["images"] == 3
    assert "b.png: " in results["skipped"]["b.png"]


def test_another_fault_still_ends_it_and_keeps_the_rows_before(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        evaluated(photos, tmp_path / "run", Stopped(2, RuntimeError))
    assert len((tmp_path / "run" / FILE).read_text().splitlines()) == 1 + 2


@pytest.mark.parametrize(("limit", "count"), [(2, 2), (9, 4), (0.5, 2), (1.0, 4), (None, 4)])
def test_a_limit_is_a_number_of_images_or_a_fraction(
    limit: float | None, count: int, photos: Path, tmp_path: Path
) -> None:
    assert evaluated(photos, tmp_path / "run", limit=limit)["images"] == count


def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    rows = MeasuredRows(tmp_path, {})
    rows._file.close()
    rows._file = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115
    with pytest.raises(OSError, match="No space left on device: .*per_image.jsonl") as caught:
        rows.add({"name": "x"}, Path(__file__), None)
    assert caught.value.filename == str(tmp_path / FILE)


def test_every_codec_says_which_sizes_it_has_no_file_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    grey = make_codec("comcnn_reccnn", overrides=("model.codec=webp",))
    for codec in (made(), Jpeg(50), grey):
        codec.check_size(100, 96)
        with pytest.raises(ValueError, match="the limit is 10000"):
            codec.check_size(100, 120)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    grey.check_size(8, 2 * 16383)
    with pytest.raises(ValueError, match="width=16384: WEBP allows"):
        grey.check_size(8, 2 * 16384)


def test_a_row_is_in_the_file_as_soon_as_it_is_measured(photos: Path, tmp_path: Path) -> None:
    """SIGKILL right after the second row."""

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        evaluated(photos, tmp_path / "run", Stopped(2, killed))
        os._exit(0)
    os.waitpid(child, 0)
    lines = [json.loads(line) for line in (tmp_path / "run" / FILE).read_text().splitlines()]
    assert [line["row"]["name"] for line in lines[1:]] == NAMES[:2]
