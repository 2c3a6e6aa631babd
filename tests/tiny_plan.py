"""What tests of tables share: a plan of one small table, and a place where it is the only one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import popen_warm

from experiments.tables import make, report
from experiments.tables import plan as planning

TRAINING = (
    'model=conv_baseline, "model.widths=[4,4]", model.latent_channels=2, "prior.filters=[2]", data=samples, '
    "data.crop_size=32, data.num_workers=0, data.limit=3, epochs=1, trainer.limit_train_batches=1, "
    "trainer.limit_test_batches=1, logger=csv"
)
PLAN = f"""
title: Tiny
source: A paper about nothing
datasets: {{samples: [data=samples, data.limit=2, data.eval_crop=192]}}
trainings:
  first: {{small: [name=first, loss.rate_weight=0.001, {TRAINING}]}}
  second: {{start_from: first, small: [name=second, loss.rate_weight=0.002, {TRAINING}]}}
evaluations:
  - {{codec: tiny, setting: small, run: first, data: [samples]}}
  - {{codec: tiny, setting: smaller, run: second, data: [samples]}}
  - {{codec: jpeg, model: jpeg, sweep: {{model.quality: [2, 20, 90]}}, data: [samples]}}
  - {{codec: png, model: png, data: [samples]}}
anchor: jpeg
notes: [JPEG is only here to be beaten.]
claims:
  PSNR (dB): [{{codec: tiny, setting: small, dataset: samples, column: psnr}}]
  SSIM: [{{codec: tiny, setting: small, dataset: samples, column: ssim}}]
  MS-SSIM: [{{codec: elsewhere, dataset: samples, column: ms_ssim}}]
"""
FIGURES = (
    "table,figure,relation,value,source,remark\ntiny,PSNR (dB),<,99,page 3,\ntiny,SSIM,=,0.5,page 4,grey\n"
    "tiny,MS-SSIM,=,0.9,page 5,\n"
)


def only_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a plan `tiny`, the only one, whose runs and results lie in `tmp_path`, the current folder."""
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(PLAN)
    (folder / "budgets.yaml").write_text((planning.PLANS / "budgets.yaml").read_text())
    (tmp_path / "figures.csv").write_text(FIGURES)
    for module in (planning, make):
        monkeypatch.setattr(module, "TABLES", ["tiny"])
    monkeypatch.setattr(planning, "PLANS", folder)
    monkeypatch.setattr(report, "PAPER_FIGURES", tmp_path / "figures.csv")
    monkeypatch.setattr(make, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(make, "subprocess", SimpleNamespace(Popen=popen_warm))
    monkeypatch.chdir(tmp_path)
    return folder
