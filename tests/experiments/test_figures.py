"""Tables and pictures of finished runs: means, losses, grids, reconstructions over epochs."""

import csv
from pathlib import Path

import pytest
import torch
from conftest import make_codec
from PIL import Image
from torch import Tensor

from codec.checkpoint import save_weights
from codec.data.image_file import read_image, write_image
from codec.training.results import write_results
from experiments.curve_options import read_curves
from experiments.plots import losses, over_epochs, pictures
from experiments.plots.comparison import coded, difference
from experiments.plots.losses import Logged, read_losses
from experiments.tables import means

SMALL = ("model.widths=[4,4]", "model.latent_channels=2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch, photograph: Tensor) -> Path:
    """The folder a command is run in, with two images and two small codecs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name in ("a1", "b2"):
        write_image(tmp_path / f"images/{name}.png", photograph[:, :180, :200].contiguous())
    for seed in (1, 2):
        save_weights(make_codec("conv_baseline", 3, seed, SMALL), tmp_path / f"tiny{seed}.safetensors")
    return tmp_path


def refused(command, arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit):
        command.main(arguments)
    return capsys.readouterr().err.splitlines()[-1]


def test_pictures_set_runs_and_what_is_asked_for_beside_the_original(folder: Path, capsys) -> None:
    runs = ["tiny1.safetensors", "tiny2.safetensors"]
    pictures.main([*runs, "--images", "images", "--crop", "96", "--out", "grid.png"])
    width, height = Image.open("grid.png").size
    assert 6 * 96 > width > 5 * 96  # original, two runs, two differences
    assert height > 2 * 96
    pictures.main([runs[0], "--images", "images", "--names", "a,c", "--beside", "jpeg", "--out", "p.png"])
    width, height = Image.open("p.png").size
    assert width > 3 * 200
    assert 2 * 180 > height > 180  # of two images, one begins with a or c
    images = ["--images", "images", "--out", "q.png"]
    assert "no images at images (--names z)" in refused(pictures, [*runs, *images, "--names", "z"], capsys)
    assert "--beside png: allowed are difference, jpeg" in refused(
        pictures, [*runs, *images, "--beside", "png"], capsys
    )
    assert "no checkpoint at runs/x" in refused(pictures, ["runs/x", *images], capsys)
    assert not Path("q.png").exists()


def test_pictures_are_of_the_quality_that_is_asked_for(folder: Path, capsys, monkeypatch) -> None:
    codec = make_codec("conv_baseline", 3, 1, (*SMALL, "bottleneck.variable_rate=true"))
    image = read_image("images/a1.png")
    codec.encode(image)  # makes the tables
    save_weights(codec, folder / "variable.safetensors")
    shown = []
    monkeypatch.setattr(pictures, "save_comparison", lambda grid, heads, out: shown.append(grid[0][1].caption))
    options = ["--images", "images/a1.png", "--out", "x.png", "--quality"]
    for quality in (10, 90.5):
        pictures.main(["variable.safetensors", *options, str(quality)])
        codec.set_quality(quality)
        assert shown[-1] == coded(codec, image).caption
    assert len(set(shown)) == 2
    assert "quality=10: this codec has one rate" in refused(pictures, ["tiny1.safetensors", *options, "10"], capsys)


def test_titles_are_names_of_runs_without_hash_and_names_of_files_without_suffix(folder: Path, monkeypatch) -> None:
    titles = []
    monkeypatch.setattr(pictures, "load_codec", lambda _: make_codec("conv_baseline", 3, 1, SMALL))
    monkeypatch.setattr(pictures, "save_comparison", lambda grid, heads, out: titles.extend(heads))
    pictures.main(
        ["runs/x_0.002-1a2b3c4d", "tiny2.safetensors", "--images", "images", "--crop", "32", "--out", "x.png"]
    )
    assert titles[:3] == ["original", "x_0.002", "tiny2"]


def test_a_difference_is_four_times_as_bright_and_the_caption_is_that_of_the_file(photograph: Tensor) -> None:
    codec = make_codec("jpeg")
    shown = coded(codec, photograph)
    data = codec.encode(photograph)
    assert torch.equal(shown.image, codec.decode(data))
    assert shown.bytes == len(data)
    assert shown.caption.startswith(f"{8 * len(data) / (300 * 451):.3f} bpp, ")
    brighter = (photograph.int() + 3).clamp(0, 255).byte()
    assert difference(brighter, photograph).max() == 12
    assert coded(make_codec("png"), photograph).caption.endswith("lossless")


def test_reconstructions_stand_in_the_order_of_epochs(folder: Path, capsys) -> None:
    kept = folder / "runs/mine-0123abcd/checkpoints"
    kept.mkdir(parents=True)
    command = ["runs/mine", "--image", "images/a1.png", "--crop", "64", "--out", "epochs.png"]
    message = refused(over_epochs, command, capsys)
    assert "runs/mine keeps no checkpoints/epoch_*.ckpt: train with callbacks=every_5_epochs" in message
    for n in (4, 9, 99, 104):
        codec = make_codec("conv_baseline", 3, n, SMALL)
        state = {"model_config": codec.model_config, "state_dict": codec.state_dict()}
        torch.save(state, kept / f"epoch_{n:03d}.ckpt")
    assert list(over_epochs.kept_checkpoints("runs/mine")) == [5, 10, 100, 105]
    over_epochs.main([*command, "--columns", "3"])
    width, height = Image.open("epochs.png").size
    assert 4 * 64 > width > 3 * 64  # the original and four epochs, in two rows
    assert height > 2 * 64
    assert "no.png" in refused(over_epochs, [*command, "--image", "no.png"], capsys)


def write_metrics(file: Path, rows: list[tuple[int, int, str, str]]) -> None:
    """`rows`: epoch, step, train loss, validation loss."""
    file.parent.mkdir(parents=True)
    lines = ["epoch,step,train/loss,val/loss,test/psnr", *(f"{e},{s},{t},{v}," for e, s, t, v in rows)]
    file.write_text("\n".join(lines) + "\n")


def test_losses_of_a_resumed_run_are_those_of_one_that_was_never_cut_short(tmp_path: Path) -> None:
    # Cut short in epoch 1; the resumed run begins at the end of epoch 0, and a third start only tests.
    write_metrics(
        tmp_path / "metrics/version_9/metrics.csv",
        [(0, 4, "8", ""), (0, 9, "4", ""), (0, 9, "", "5"), (1, 14, "99", "")],
    )
    write_metrics(
        tmp_path / "metrics/version_10/metrics.csv", [(1, 14, "3", ""), (1, 19, "1", ""), (1, 19, "", "2.5")]
    )
    write_metrics(tmp_path / "metrics/version_11/metrics.csv", [("", 20, "", "")])
    found = read_losses(tmp_path)
    assert found["train"] == [Logged(0, 4, 8), Logged(0, 9, 4), Logged(1, 14, 3), Logged(1, 19, 1)]
    assert found["val"] == [Logged(0, 9, 5), Logged(1, 19, 2.5)]
    assert [value.loss for value in losses.mean_of_epochs(found["train"])] == [6, 2]


def test_loss_curves_are_drawn_of_several_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a-01234567", "b-01234567", "zero", "empty"):
        rows = [] if name == "empty" else [(0, 9, "0" if name == "zero" else "4", ""), (0, 9, "", "5")]
        write_metrics(tmp_path / f"runs/{name}/metrics/version_0/metrics.csv", rows)
    losses.main(["runs/a", "runs/b", "--log", "--out", "docs/x.png"])
    assert capsys.readouterr().out.split() == ["docs/x.png", "docs/x.svg"]
    for name in ("a, train", "a, validation", "b, train", "b, validation"):
        assert f">{name}</text>" in Path("docs/x.svg").read_text()
    losses.main(["runs/a", "--over", "steps", "--out", "y.svg"])
    assert ">steps</text>" in Path("y.svg").read_text()
    assert "no metrics/version_*/metrics.csv in runs/c" in refused(losses, ["runs/c", "--out", "z.png"], capsys)
    assert "empty has logged no loss yet" in refused(losses, ["runs/empty", "--out", "z.png"], capsys)
    assert "zero has losses of 0" in refused(losses, ["runs/zero", "--log", "--out", "z.png"], capsys)


def test_curves_of_other_images_are_told(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, images in (("a", "xy"), ("b", "xy"), ("c", "xz"), ("d", "xy")):
        rows = [{"name": image, "bpp": 0.5, "mse": 0.001, "psnr": 30.0} for image in images]
        write_results(tmp_path / "runs" / folder, rows, {})
    assert list(read_curves(["A=runs/a,runs/b", "D=runs/d"])) == ["A", "D"]
    assert capsys.readouterr().err == ""
    read_curves(["A=runs/a,runs/b", "C=runs/c", "D=runs/d"])
    assert capsys.readouterr().err == "C and A are not of the same images: their points do not compare\n"
    read_curves(["A=runs/a,runs/c"])
    assert capsys.readouterr().err == "A is of different images: its points do not compare\n"


def test_means_are_written_with_every_image_of_every_codec(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, psnr, images in (("jpeg-01234567", 30.0, "ab"), ("mine-01234567", 32.0, "ab"), ("other", 1.0, "c")):
        rows = [{"name": image, "bpp": 0.5, "mse": 0.001, "psnr": psnr + n} for n, image in enumerate(images)]
        write_results(tmp_path / "runs" / folder, rows, {"codec": folder})
    means.main(["runs/jpeg", "runs/mine"])
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| codec | images | bpp | mse | psnr |"
    assert table[2:] == ["| jpeg | 2 | 0.5000 | 0.00100 | 30.50 |", "| mine | 2 | 0.5000 | 0.00100 | 32.50 |"]
    means.main(["runs/*-*", "--out", "docs/t.md"])
    assert capsys.readouterr().out.split() == ["docs/t.md", "docs/t.csv", "docs/t_per_image.csv"]
    assert Path("docs/t.md").read_text().splitlines() == table
    with Path("docs/t_per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["codec"], float(row["psnr"])) for row in rows] == [
        *(("a", "jpeg", 30), ("a", "mine", 32), ("b", "jpeg", 31), ("b", "mine", 33)),
    ]
    means.main(["runs/jpeg", "runs/other"])
    assert "other and jpeg are not of the same images" in capsys.readouterr().err
    assert "no results.json in runs/x" in refused(means, ["runs/x"], capsys)
    assert "give the Markdown file" in refused(means, ["runs/jpeg", "--out", "t.csv"], capsys)
