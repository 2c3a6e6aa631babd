"""The config tree: every file composes and instantiates, and every fault is one line before any work."""

import inspect
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, composed
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from codec.errors import ArgumentError, ConfigError, install
from codec.training import evaluate, train
from codec.training.config import Builder
from codec.training.faults import cause_of

FILES = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml"))
OPTIONS = [path for path in FILES if path.parent != Path() and path.stem != "base"]
# What an option needs besides itself: a value that only the user can give.
NEEDS = {"data/folder": ["data.train.root=."], "loss/vgg": ["loss.perceptual.pretrained=false"]}
NEEDS["data/folder_bsd300"] = ["data.train.sources.folder.root=."]
NEEDS["loss/mse_vgg"] = NEEDS["experiment/quantized_autoencoder"] = NEEDS["loss/vgg"]


def test_the_config_tree_has_the_files_that_are_tested_here() -> None:
    assert len(OPTIONS) == sum(len(list(folder.rglob("*.yaml"))) for folder in (ROOT / "conf").iterdir()) - 1
    assert len(OPTIONS) >= 50


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_every_option_composes_and_instantiates(path: Path) -> None:
    group, option = str(path.parent), path.stem
    if option.startswith("jpegxl"):
        pytest.importorskip("pillow_jxl", reason=install("jpegxl"))
    config = composed("train", [f"{group}={option}", "folder=somewhere", *NEEDS.get(f"{group}/{option}", [])])
    if group == "experiment":  # a preset is many choices: all of them must be makeable
        for part in ("model", "data", "loss", "optimizer", "scheduler", "callbacks"):
            assert instantiate(config[part], _convert_="all") is not None
    elif "_target_" in config.get(group, {}):
        assert instantiate(config[group], _convert_="all") is not None
    elif group in ("callbacks", "logger"):
        for name, part in config[group].items():
            if name != "wandb":  # made in tests/training/test_wandb.py, where its run is looked at
                assert instantiate(part, _convert_="all") is not None
    elif group.startswith("hydra/"):
        settings = OmegaConf.load(ROOT / "conf" / path)
        inspect.signature(get_object(settings.pop("_target_"))).bind(**{k: None for k in settings if k[0] != "_"})
    elif group in ("strategy", "debug", "quantization"):
        arguments = {k: v for k, v in config.trainer.items() if k != "_target_"}
        accepted = inspect.signature(get_object(config.trainer._target_)).parameters
        assert set(arguments) <= set(accepted)
        assert OmegaConf.to_container(config, resolve=True)
    else:
        pytest.fail(f"conf/{path}: this test does not know group {group}")


def test_sharded_training_clips_no_norm_which_lightning_would_refuse() -> None:
    assert composed("train", ["strategy=fsdp"]).trainer.gradient_clip_val is None


def test_sharded_training_keeps_float32_weights_whatever_its_precision() -> None:
    strategy = instantiate(composed("train", ["strategy=fsdp"]).trainer.strategy)
    kept = strategy.mixed_precision_config
    assert (kept.param_dtype, kept.reduce_dtype, kept.buffer_dtype) == (None, None, None)


@pytest.mark.parametrize("entry", ["train", "evaluate"])
def test_the_entry_configs_resolve(entry: str) -> None:
    assert OmegaConf.to_container(composed(entry, []), resolve=True)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_config_file_is_short_and_says_what_it_is(path: Path) -> None:
    text = (ROOT / "conf" / path).read_text()
    assert "#" in text.splitlines()[0]
    limit = 60 if path.parent == Path() else 30
    assert len(text.splitlines()) <= limit


@pytest.mark.parametrize("path", [path for path in FILES if path.parent == Path("experiment")], ids=str)
def test_a_preset_opens_with_its_command(path: Path) -> None:
    lines = (ROOT / "conf" / path).read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1] == f"# python train.py experiment={path.stem}"
    assert lines[2].startswith("# ")


def run_entry(entry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *overrides: str) -> str:
    """What `python train.py OVERRIDES` prints on stderr when it refuses them."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", [entry.__name__, *overrides])
    with pytest.raises(SystemExit) as stopped:
        entry.main()
    assert stopped.value.code == 2
    captured = capsys.readouterr().err
    assert "Traceback" not in captured
    return captured


def keys_in(printed: str) -> list[str]:
    return [re.split("[=:]", line)[1].strip() for line in printed.splitlines() if line.startswith("error:")]


FAULTS = [
    (["quantization.bits=0"], r"error: quantization\.bits=0: allowed are the integers 1 to 8"),
    (["quantization.bits=9"], r"error: quantization\.bits=9: allowed are the integers 1 to 8"),
    (["quantization.noise=loud"], r"error: quantization\.noise=loud: allowed are uniform, paper, straight_through"),
    (["loss.rate_weight=-1"], r"error: loss\.rate_weight=-1: allowed are numbers from 0"),
    (["data.crop_size=4000"], r"error: data\.crop_size=4000: .* is only \d+x\d+ .*: allowed are 1 to \d+"),
    (["data.channels=2"], r"error: data\.channels=2: allowed are 1 .* and 3"),
    (["data.val_fraction=2"], r"error: data\.val_fraction=2"),
    (["data=folder", "data.train.root=nowhere"], r"error: data\.train\.root=nowhere: no such folder"),
    (
        ["data=bsd300", "data.train.root=nowhere"],
        r"error: data\.train\.root=nowhere: no such folder: name .*, or put QUINTET_DOWNLOAD=true before",
    ),
    (["data=folder"], r"error: data\.train\.root: a value must be given: data\.train\.root=…"),
    (["modle=conv_baseline"], r"error: Could not override 'modle': there is no such key; .*; did you mean model\?"),
    (["model.depth=3"], r"error: Could not override 'model\.depth': there is no such key; --help lists them all$"),
    (["data.batchsize=3"], r"error: Could not override 'data\.batchsize': .*; did you mean data\.batch_size\?"),
    (["+model.widht=[8,8]"], r"error: model\.widht: ConvBaseline has no .*; did you mean model\.widths\?"),
    (
        ["model=diffusion_wavlet"],
        r"error: .*'model/diffusion_wavlet': there are .*; did you mean model=diffusion_wavelet\?",
    ),
    (["~schedulr"], r"error: Could not delete from config. 'schedulr' does not exist; did you mean ~scheduler\?"),
    (["~model.widht"], r"error: .*'model\.widht' does not exist; did you mean ~model\.widths\?"),
    (["~modle.widths"], r"error: Could not delete from config. 'modle\.widths' does not exist$"),
    (
        ['data.batch_size="${foo"'],
        r'error: Error merging override data\.batch_size="\$\{foo": no viable .*\$\{foo\'$',
    ),
    (["hydra.run=3"], r"error: Error merging override hydra\.run=3: [^;]*$"),
    (["hydra/launcher=locl"], r"error: .*'hydra/launcher/locl': there are .*; did you mean hydra/launcher=local\?"),
    (["+model.depth=3"], r"error: model\.depth: ConvBaseline has no such argument; it has bottleneck, "),
    (["model=nonsense"], r"error: .*'model/nonsense': there are .*conv_baseline"),
    (["model=jpeg"], r"error: model: .*nothing to train.*evaluate\.py"),
    (["model.widths=[8]"], r"error: model\.widths=\[8\]: allowed are"),
    (["model=conv_enhanced", "model.dropout=1"], r"error: model\.dropout=1"),
    (["data.batch_size=abc"], r"error: data\.batch_size=abc: allowed are the integers from 1"),
    (["loss.rate_weight=abc"], r"error: loss\.rate_weight=abc: allowed are numbers from 0"),
    (["epochs=0"], r"error: epochs=0: allowed are the integers from 1"),
    (["strategy.precision=half"], r"error: strategy\.precision=half: allowed are auto, 32-true, bf16-mixed"),
    (["epochs=0", "data=folder", "data.train.root=nowhere"], r"error: epochs=0: "),  # no data is looked for
    (["optimizer.lr=-1"], r"error: optimizer\.lr=-1: allowed are numbers above 0"),
    (
        ["start_from=x", "data=folder", "data.train.root=nowhere"],
        r"error: start_from: no checkpoint at x",
    ),
    (["scheduler=null"], r"error: scheduler=null: a config group has no null; ~GROUP leaves it out"),
    (["~loss"], r"error: loss: a training needs one"),
    (["data.seed=x"], r"error: data\.seed=x: allowed are the integers 0 to"),
    (["data.split_seed=-1"], r"error: data\.split_seed=-1: allowed are the integers 0 to"),
    (["trainer.max_epochs=-5"], r"error: trainer\.max_epochs=-5: allowed are the integers from 1"),
    (["trainer.max_epochs=1"], r"error: trainer\.max_epochs=1: say epochs=1, which schedules follow, too"),
    (["seed=x"], r"error: seed=x: allowed are the integers 0 to"),
    (["name=a/b"], r"error: name=a/b: allowed are"),
    (["name=a=b"], r"error: name=a=b: quote a value with spaces or signs twice, 'name=\"a=b\"'"),
    (["optimizer.lr=1,2"], r"error: optimizer.lr=1,2: -m makes a run of each; one list is \[1,2\]$"),
    (["model=lossless_unet,jpeg"], r"error: model=lossless_unet,jpeg: -m makes a run of each$"),
    (["trainer.max_epochs=zwei"], r"error: trainer\.max_epochs=zwei: allowed are the integers from 1"),
    (["epochs=2.5"], r"error: epochs=2\.5: allowed are the integers from 1"),
    (["test=maybe"], r"error: test=maybe: allowed are true and false"),
    (["model.latent_channels=many"], r"error: model\.latent_channels=many: allowed are integers"),
    (["model.widths=[a,b]"], r"error: model\.widths=\['a', 'b'\]: allowed are lists of integers"),
    (["model._target_=codec.schemes.Nothing"], r"error: model\._target_=codec\.schemes\.Nothing: there is no such"),
    (["more_epochs=-1"], r"error: more_epochs=-1: allowed are the integers from 0"),
    (
        ["scheduler=plateau", "trainer.limit_val_batches=0"],
        r"error: scheduler=plateau: it follows val/loss, and no",
    ),
    (
        ["scheduler=plateau", "epochs=3", "trainer.check_val_every_n_epoch=4"],
        r"error: scheduler=plateau: it follows",
    ),
    (["trainer.limit_train_batches=0"], r"error: trainer\.limit_train_batches=0: nothing would be trained"),
    (["trainer.limit_train_batches=1.5"], r"error: trainer\.limit_train_batches=1\.5: allowed are null, a number"),
    (["trainer.limit_test_batches=0"], r"error: trainer\.limit_test_batches=0: test=false leaves the test out"),
    (
        ["trainer.limit_test_batches=0.1"],
        r"error: trainer\.limit_test_batches=0\.1: of 3 test images that leaves none",
    ),
    (["+trainer.fast_dev_run=true"], r"error: trainer\.fast_dev_run=true: it leaves no checkpoint; debug=one_step"),
    (
        [
            "data.limit=1",
            "data.crops_per_image=1",
            "strategy=ddp",
            "strategy.accelerator=cpu",
            "strategy.devices=2",
        ],
        r"error: strategy\.devices=2: of 1 crop an epoch, 2 processes do not get one each",
    ),
    (["optimizer=adamw", "optimizer.weight_decay=-1"], r"error: optimizer: Invalid weight_decay value: -1"),
    (["scheduler=plateau", "scheduler.factor=3"], r"error: scheduler: Factor should be < 1"),
    (["model.latent_channels=0"], r"error: model\.latent_channels=0: allowed are the integers from 1"),
    (["~strategy"], r"error: strategy: a training needs one, and ~strategy leaves it out"),
    (["~trainer"], r"error: trainer: a training needs one, and ~trainer leaves it out"),
    (["+callbacks.every.dirpath=x"], r"error: callbacks\.every: it has no _target_"),
    (["strategy.compile=true"], r"error: strategy\.compile=true: this model has no context prior: leave it false"),
    (["strategy.devices=0"], r"error: strategy\.devices=0: allowed are auto, a number from 1"),
    (["trainer.max_time=abc"], r"error: trainer\.max_time=abc: allowed are null and DD:HH:MM:SS"),
    (["start_from='~nobody-here/x'"], r"error: start_from=~nobody-here/x: there is no such home folder"),
]


@pytest.mark.parametrize(
    ("overrides", "line"), FAULTS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_wrong_value_is_one_line_that_names_it(overrides, line, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run_entry(train, monkeypatch, capsys, *overrides)
    (error,) = [text for text in printed.splitlines() if text.startswith("error: ")]
    assert re.match(line, error), error
    assert not (tmp_path / "runs").exists()


def test_all_faults_are_told_together(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = ("quantization.bits=0", "loss.rate_weight=-1", "data.batch_size=0", "data.limit=0", "epochs=0")
    printed = run_entry(
        train, monkeypatch, capsys, *wrong, "optimizer.lr=0", "model.widths=8", "strategy.precision=7"
    )
    assert keys_in(printed) == [
        *("epochs", "quantization.bits", "data.batch_size", "data.limit", "loss.rate_weight", "optimizer.lr"),
        *("strategy.precision", "model.widths"),
    ]
    printed = run_entry(train, monkeypatch, capsys, "+optimizer.rate=1", "model.widths=[1]")
    assert keys_in(printed) == ["model.widths", "optimizer.rate"]  # which only torch and Lightning see


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([], r"error: neither run nor model nor pretrained is named: name one of them"),
        (["model=jpeg"], r"error: data=null: name the images"),
        (
            ["model=jpeg", "model.quality=101", "data=samples"],
            r"error: model\.quality=101: allowed are the integers",
        ),
        (["run=nowhere"], r"error: no checkpoint at nowhere"),
        (["run=nowhere", "loss=mse"], r"error: Could not override 'loss': this command has no such group$"),
        (
            ["model=jpeg", "data=kodac"],
            r"error: In 'evaluate': Could not find 'data/kodac': there are bsd300 .*; did you mean data=kodak\?$",
        ),
        (["pretrained=conv_baseline", "quality=300", "data=samples"], r"error: quality"),
        (["run=nowhere", "pretrained=best"], r"error: run and pretrained are named: name one of them"),
        (["pretrained=conv_baseline"], r"error: data=null: name the images"),
        (["pretrained=best"], r"error: pretrained: no pretrained model is called best: there are"),
        (["pretrained=best", "data=samples"], r"error: pretrained: no pretrained model is called best: there are"),
        (["model=conv_baseline", "data=samples"], r"error: model: a learned codec is measured once it is trained"),
        (["model=jpeg", "data=samples", "device=tpu"], r"error: device=tpu: allowed are auto, cpu"),
        (["model=jpeg", "data=kodak", "data.test.root=nowhere", "device=tpu"], r"error: device=tpu: "),
        (
            ["model=jpeg", "data=samples", "metrics=[psnr_z]"],
            r"error: metrics=psnr_z: allowed are psnr_y, ciede2000",
        ),
        (["model=jpeg", "data=samples", "target_bpp=0"], r"error: target_bpp=0: allowed are numbers above 0"),
        (
            ["pretrained=diffusion_wavelet", "quality=30", "data=samples", "target_bpp=1"],
            r"error: target_bpp=1: quality=30 is given too: name one of them",
        ),
        (
            ["model=png", "data=samples", "target_bpp=1"],
            r"error: target_bpp=1: only what writes at many qualities takes it: .* and jpeg, webp, avif, jpegxl$",
        ),
        (
            ["model=jpeg", "data=samples", "quality=30"],
            r"error: quality=30: only a run of .* or bottleneck",
        ),
        (
            ["pretrained=comcnn_reccnn", "data=samples", "data.channels=1", "effort=1"],
            r"error: effort=1: only a learned codec with a quantised latent takes it",
        ),
        (
            ["pretrained=diffusion_wavelet", "data=samples", "quality=30.3"],
            r"error: .*quality=30\.3: allowed are 0 to 100 in steps of 0\.5",
        ),
        (
            ["pretrained=diffusion_wavelet", "data=samples", "effort=10"],
            r"error: effort=10: allowed are the integers 0 to 9",
        ),
        (
            ["model=jpeg", "data=kodak", "data.test.root=nowhere"],
            r"error: data\.test\.root=nowhere: no such folder",
        ),
    ],
)
def test_evaluate_refuses_in_one_line(overrides, line, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run_entry(evaluate, monkeypatch, capsys, *overrides)
    (said,) = printed.splitlines()
    assert re.match(line, said), said


def test_builder_collects_faults_and_raises_them_at_the_end() -> None:
    config = OmegaConf.create({"a": {"_target_": "codec.losses.RateDistortionLoss", "rate_weight": -1}, "b": None})
    with pytest.raises(ConfigError, match=r"^a\.rate_weight=-1: .*\nb: nothing here$"), Builder(config) as build:
        assert build.part("a") is None
        build.faults.append(ConfigError("b", "nothing here"))


def test_a_fault_of_ours_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TypeError in a constructor is no fault of the config, though Hydra wraps it."""
    config = OmegaConf.create({"loss": {"_target_": "codec.losses.RateDistortionLoss"}})
    monkeypatch.setattr("codec.losses.check_loss", lambda *_: 1 + None)
    with pytest.raises(TypeError, match="unsupported operand") as raised, Builder(config) as build:
        build.part("loss")
    assert raised.traceback[-1].path == Path(__file__)  # where it was raised


def test_the_first_fault_is_behind_what_is_told_of_all() -> None:
    config = OmegaConf.create({"loss": {"_target_": "codec.losses.RateDistortionLoss", "mse_weight": -1}})
    with pytest.raises(ConfigError) as raised, Builder(config) as build:
        build.part("loss")
    assert isinstance(cause_of(raised.value.__cause__), ArgumentError)
    assert cause_of(raised.value.__cause__).key == "mse_weight"


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (
            {"_target_": "torch.optim.SGD", "_partial_": True, "speed": 1},
            r"a\.speed: SGD has no such argument; it has params",
        ),
        (
            {"_target_": "codec.data.samples.Nothing"},
            r"a\._target_=codec\.data\.samples\.Nothing: there is no such thing",
        ),
        ({"_target_": "codec.data.kodak.KodakSource"}, r"a: KodakSource needs root"),
        ({"_target_": "fractions.Fraction", "numerator": "x"}, r"a: Invalid literal for Fraction: 'x'"),
    ],
)
def test_what_cannot_be_called_so_is_a_fault_of_the_config(part: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"), Builder(OmegaConf.create({"a": part})) as build:
        build.part("a")


def test_a_part_of_a_group_that_is_null_is_left_out() -> None:
    config = composed("train", ["callbacks.stop_on_nan=null", "+callbacks.further=null"])
    assert len(Builder(config).group("callbacks")) == len(config.callbacks) - 2
