"""The benchmark measures every learned codec, and its parts are parts of the whole. No speed is asserted."""

import json
import math

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class

from codec.learned_codec import LearnedCodec
from codec.training.precision import has_bfloat16
from experiments.bench import __main__ as bench

TINY = ["data.crop_size=32", "data.batch_size=2", "--device", "cpu", "--seconds", "0", "--size", "64"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("bench")
        patch.chdir(folder)
        returned = bench.main(TINY)
        (file,) = (folder / "bench").iterdir()
        assert json.loads(file.read_text()) == returned
        return returned


def test_every_learned_model_is_measured(results):
    learned = set()
    with initialize_config_dir(str(bench.CONF), version_base="1.3"):
        for file in (bench.CONF / "model").glob("*.yaml"):
            target = compose("train", [f"model={file.stem}"]).model._target_
            if issubclass(get_class(target), LearnedCodec):
                learned.add(file.stem)
    assert learned
    assert results["training"].keys() == learned
    assert results["coding"].keys() == learned | set(bench.REFERENCES)


def test_training_speeds_agree_with_each_other(results):
    for speeds in results["training"].values():
        assert list(speeds) == ["fp32", "bf16_channels_last" if has_bfloat16("cpu") else "fp32_channels_last"]
        for speed in speeds.values():
            assert speed["batch"] == [2, 3, 32, 32]
            assert speed["steps_per_s"] > 0
            assert speed["images_per_s"] == pytest.approx(2 * speed["steps_per_s"])
            assert speed["megapixels_per_s"] == pytest.approx(speed["images_per_s"] * 32 * 32 / 1e6)


def test_the_parts_add_up_to_the_whole(results):
    for name, speeds in results["coding"].items():
        for way in ("encode", "decode"):
            speed = speeds[way]
            assert speed["ms"] > 0
            assert speed["megapixels_per_s"] > 0
            if name in bench.REFERENCES:
                assert "parts_ms" not in speed
                continue
            assert tuple(speed["parts_ms"]) == bench.PARTS
            assert all(ms >= 0 for ms in speed["parts_ms"].values())
            assert speed["parts_ms"]["network"] > 0
            assert speed["parts_ms"]["coder"] > 0
            assert (speed["parts_ms"]["prior"] > 0) == (name != "comcnn_reccnn")
            assert sum(speed["parts_ms"].values()) <= speed["ms"]


def test_time_in_an_inner_part_is_not_the_outer_ones_too():
    parts = bench.Parts(iter([0.0, 1.0, 3.0, 7.0]).__next__)
    inner = parts.timed("coder")(lambda: None)
    parts.timed("format")(inner)()
    assert parts.seconds == {"format": 1 + 4, "coder": 2}


def test_nothing_stays_patched(results):
    for function in (bench.unbounded.encode, bench.coder.decode, bench.tables.CodingTables.refresh):
        assert not hasattr(function, "__wrapped__")


def test_the_hardware_is_named(results):
    about = results["about"]
    assert about["cpu"]
    assert about["threads"] >= 1
    assert about["gpu"] is None
    assert about["command"].startswith("python -m experiments.bench data.crop_size=32")
    assert all(math.isfinite(s) and s > 0 for speed in results["coder"].values() for s in speed.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["model=none_such"], "none_such"), (["data.crop_size=null", *TINY[1:]], "data.crop_size=null")],
)
def test_a_users_mistake_is_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        bench.main(arguments)
    assert stop.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert said in errors[0]
