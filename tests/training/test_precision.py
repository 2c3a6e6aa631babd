"""strategy.precision=auto: bfloat16 where the machine has arithmetic for it, and only there."""

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import folder_of
from hydra.core.global_hydra import GlobalHydra

import train
from codec.training import precision
from codec.training.precision import choose_precision, has_bfloat16

ONE_STEP = (
    "strategy=cpu logger=csv epochs=1 name=one data.num_workers=0 data.crop_size=32 data.eval_crop=32 data.limit=4 "
    "data.batch_size=2 model.widths=[8,8] model.latent_channels=4 trainer.limit_train_batches=1 "
    "trainer.limit_test_batches=1 ~callbacks.progress"
)


def train_a_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Does what train.py does in `folder`; returns the run."""
    GlobalHydra.instance().clear()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *ONE_STEP.split()])
    train.main()
    return folder_of(folder / "runs", "one")


def test_auto_trains_in_what_the_cpu_is_fast_in_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, runs = [], []
    for native, line in (
        (True, "precision: bf16-mixed, since this CPU has bfloat16 arithmetic"),
        (False, "precision: 32-true, since this CPU has no bfloat16 arithmetic"),
    ):
        monkeypatch.setattr(precision, "has_bfloat16", lambda device, native=native: native)
        (folder := tmp_path / str(native)).mkdir()
        run = train_a_step(folder, monkeypatch)
        assert line in capsys.readouterr().out.splitlines()
        assert (run / "provenance/precision.txt").read_text() == f"{line}\n"
        results = json.loads((run / "results.json").read_text())
        assert results["precision"] == ("bf16-mixed" if native else "32-true")
        state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        weights.append(torch.cat([tensor.flatten().float() for tensor in state.values()]))
        runs.append(run.name)
    assert runs[0] == runs[1]  # the same request, on whichever machine
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    ("found", "isa", "native"),
    [
        ({"avx2": True, "avx512_bf16": True}, "", True),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": True}, "ALL", True),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "", False),
        ({"architecture": "arm64", "bf16": True}, "", False),
        ({"avx2": True, "avx512_bf16": True}, "avx2", False),
        ({"avx2": True, "avx512_bf16": True}, "AVX512_CORE_BF16", True),
    ],
    ids=["AVX512", "AMX", "AVX512 without", "ARM", "oneDNN kept from it", "oneDNN up to it"],
)
def test_a_cpu_has_bfloat16_where_avx512_or_amx_has_and_onednn_may_use_it(
    found: dict[str, bool | str], isa: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert has_bfloat16("cpu") == native


def test_what_torch_tells_of_this_cpu_is_what_linux_tells() -> None:
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").is_file() else []
    if "avx2" not in flags:
        pytest.skip("no x86 Linux")
    assert has_bfloat16("cpu") == ("avx512_bf16" in flags or "amx_bf16" in flags)


def test_an_explicit_precision_stays_and_is_advised_against_where_it_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    asked = choose_precision("bf16-mixed", "cpu")
    assert asked.name == "bf16-mixed"
    assert str(asked) == (
        "precision: bf16-mixed, as configured, though this CPU has no bfloat16 arithmetic: "
        "32-true is many times faster"
    )
    assert str(choose_precision("32-true", "cpu")) == "precision: 32-true, as configured"
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    assert str(choose_precision("32-true", "cpu")) == (
        "precision: 32-true, as configured; "
        "strategy.precision=auto takes bf16-mixed, since this CPU has bfloat16 arithmetic"
    )
