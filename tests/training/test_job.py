"""What the job of a process is called and grouped by: as its launcher says, as Hydra knows it, by itself."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import composed, make_codec
from hydra.core.hydra_config import HydraConfig

from codec.image_codec import ImageCodec
from codec.training.job import job_group, job_name, sweep_name
from codec.training.loggers import rate_distortion_point

FOLDER = Path("runs/jpeg_samples-0123abcd")


@pytest.fixture(scope="module")
def jpeg() -> ImageCodec:
    return make_codec("jpeg")


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the process be a job with these overrides: by itself, or in the process of a sweep."""

    def started(*overrides: str, mode: str = "RUN") -> None:
        config = composed("evaluate", [f"hydra.mode={mode}", *overrides], hydra=True)
        monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
        HydraConfig.instance().set_config(config)

    for name in ("QUINTET_JOB_NAME", "QUINTET_JOB_GROUP", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    return started


def test_a_job_is_called_what_its_launcher_says(job: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUINTET_JOB_NAME", "model.quality=20")
    monkeypatch.setenv("QUINTET_JOB_GROUP", "my-sweep")
    job("data=samples", "model=jpeg", "model.quality=20")
    assert (job_group(), job_name(FOLDER)) == ("my-sweep", "model.quality=20")


def test_a_job_by_itself_is_named_by_its_folder_and_has_no_group(job: Callable) -> None:
    job("data=samples", "model=jpeg")
    assert (job_group(), job_name(FOLDER)) == (None, "jpeg_samples")


def test_a_job_of_wandbs_own_sweep_is_named_by_its_overrides(
    job: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s0")
    job("data=samples", "model=jpeg")
    assert (job_group(), job_name(FOLDER)) == (None, "data=samples model=jpeg")


def test_jobs_in_the_process_of_their_sweep_are_grouped_and_named_too(
    job: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    job("model=jpeg", mode="MULTIRUN")
    for data in ("samples", "kodak"):
        monkeypatch.setattr(
            sys, "argv", ["evaluate.py", "-m", "model=jpeg,png", f"data={data}", "hydra.verbose=true"]
        )
        assert job_group() == sweep_name(["model=jpeg,png", f"data={data}"])
        assert job_name(FOLDER) == "model=jpeg"


def test_a_name_longer_than_wandb_takes_is_cut_and_stays_distinct(job: Callable) -> None:
    names = set()
    for image in "ab":
        job("model=jpeg", f"name={'x' * 140}{image}", mode="MULTIRUN")
        names.add(job_name(FOLDER))
    assert [len(name) for name in names] == [128, 128]


def test_the_same_overrides_are_the_same_sweep_wherever_it_is_put() -> None:
    name = sweep_name(["epochs=3", "model=a,b", "runs=here"])
    assert name.startswith("model=a,b_epochs=3-")
    assert name == sweep_name(["epochs=3", "model=a,b", "runs=/there", "logger=csv"])
    assert name != sweep_name(["epochs=4", "model=a,b"])
    long = sweep_name([f"data.train.root='/{'x y' * 200}'", "seed=0,1"])
    assert len(long) <= 100
    assert os.sep not in long
    assert " " not in long


@pytest.mark.parametrize(
    ("overrides", "curve"),
    [
        (("model=jpeg", "data=samples"), "jpeg on samples"),
        (("model=jpeg", "data=samples", "name=mine"), "mine on samples"),
        (("model=jpeg", "data=samples", "data.batch_size=2"), "jpeg on samples"),
        (("model=jpeg", "data=samples", "data.eval_crop=192"), "jpeg on samples (eval_crop=192)"),
        (("run=runs/a_b-0123abcd", "data=samples"), "a_b on samples"),
        (("run=runs/a_b-0123abcd/checkpoints/epoch_004.ckpt",), "a_b on its own test images"),
        (("pretrained=diffusion_wavelet", "quality=30.5", "data=samples"), "diffusion_wavelet on samples"),
    ],
)
def test_points_of_other_images_or_runs_are_on_other_curves(
    overrides: tuple[str, ...], curve: str, jpeg: ImageCodec, job: Callable
) -> None:
    job(*overrides)
    assert rate_distortion_point(jpeg, {"bpp": 1.0})["curve"] == curve
