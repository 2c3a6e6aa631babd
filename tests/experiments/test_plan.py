"""Every table's plan composes with every budget, and says of the paper what the data file says."""

import csv

import pytest
from conftest import ROOT

from codec.pretrained import pretrained_models
from codec.training.results import COLUMNS
from codec.training.run_folder import evaluation_folder
from experiments.compose import composed
from experiments.tables.plan import TABLES, PlanError, read_plan
from experiments.tables.report import PAPER_FIGURES

BUDGETS = ("smoke", "small", "paper")


@pytest.fixture(autouse=True)
def no_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUINTET_PHOTOS", raising=False)


def paper_figures() -> list[dict[str, str]]:
    with PAPER_FIGURES.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_training_composes_to_a_folder_of_its_own(table: str, budget: str) -> None:
    trainings = read_plan(table, budget).trainings
    folders = {training.folder for training in trainings}
    assert len(folders) == len(trainings)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("budget", ["smoke", "paper"])
def test_every_evaluation_composes_and_no_two_share_their_results(table: str, budget: str) -> None:
    evaluations = read_plan(table, budget).evaluations
    assert evaluations
    names = [evaluation.name for evaluation in evaluations]
    assert len(set(names)) == len(names)
    for evaluation in {(e.codec, e.dataset): e for e in evaluations}.values():  # their settings differ in numbers
        with composed("evaluate", evaluation.command_overrides()) as config:
            assert (config.run is None) == (evaluation.training is None)
            assert config.name == evaluation.name


@pytest.mark.parametrize("table", TABLES)
def test_each_evaluation_is_of_a_training_or_a_standard_codec(table: str) -> None:
    for budget in BUDGETS:
        for evaluation in read_plan(table, budget).evaluations:
            standard = any(override.startswith("model=") for override in evaluation.overrides)
            assert standard != (evaluation.training is not None)


@pytest.mark.usefixtures("here")
def test_what_comes_with_the_package_is_measured_and_not_trained_again() -> None:
    """Also where the config of the preset, and so its run's name, has changed since."""
    packaged = {model.name for model in pretrained_models()}
    trainings = [training for table in TABLES for training in read_plan(table, "small").trainings]
    named = [training for training in trainings if training.name in packaged]
    assert len(named) > 5
    assert [training.name for training in named if training.weights is None] == []


def test_the_papers_figures_and_the_plans_claims_name_each_other() -> None:
    for table in TABLES:
        named = {row["figure"] for row in paper_figures() if row["table"] == table}
        plan = read_plan(table, "small")
        assert named == set(plan.claims)
        measured = read_plan(table, "paper").evaluations
        for claim in (claim for claims in plan.claims.values() for claim in claims):
            assert claim["column"] in COLUMNS
            assert any(
                (e.codec, e.dataset) == (claim["codec"], claim["dataset"])
                and claim.get("setting", e.setting) == e.setting
                for e in measured
            ), claim
    assert {row["table"] for row in paper_figures()} <= set(TABLES)


def test_the_papers_own_settings_are_trained_with_the_papers_budget_only() -> None:
    small, paper = (read_plan("diffusion", budget) for budget in ("small", "paper"))
    assert {t.name for t in paper.trainings} - {t.name for t in small.trainings} == {"diffusion_paper"}
    assert not any(e.codec == "diffusion" for e in small.evaluations)


def test_seeds_are_separate_trainings_and_points() -> None:
    plan = read_plan("conv", "small", seeds=3)
    count = len(read_plan("conv", "small").trainings)
    assert [training.seed for training in plan.trainings] == [seed for seed in range(3) for _ in range(count)]
    assert len({training.folder for training in plan.trainings}) == 3 * count
    names = [evaluation.name for evaluation in plan.evaluations]
    assert len(set(names)) == len(names)
    assert {t.folder for t in read_plan("conv", "small").trainings} < {t.folder for t in plan.trainings}


def test_smoke_measures_the_ends_of_a_sweep() -> None:
    settings = [e.setting for e in read_plan("baselines", "smoke").evaluations if e.codec == "jpeg"]
    assert set(settings) == {"quality=5", "quality=90"}


def test_photographs_are_trained_on_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without = read_plan("lossless", "small").trainings[0]
    monkeypatch.setenv("QUINTET_PHOTOS", str(ROOT / "tests"))
    with_photos = read_plan("lossless", "small").trainings[0]
    assert without.folder != with_photos.folder
    with composed("train", with_photos.overrides) as config:
        assert config.data.train.sources.folder.root == str(ROOT / "tests")
    monkeypatch.setenv("QUINTET_PHOTOS", "nowhere")
    with pytest.raises(PlanError, match="QUINTET_PHOTOS=nowhere"):
        read_plan("lossless", "small")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("nothing", "small"), "table=nothing"), (("conv", "huge"), "BUDGET=huge"), (("conv", "small", 0), "SEEDS=0")],
)
def test_wrong_arguments_are_named(arguments: tuple, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        read_plan(*arguments)


def test_composing_leaves_no_trace_of_hydra() -> None:
    with composed("evaluate", ["model=jpeg", "data=samples"]) as config:
        assert evaluation_folder(config).path.name.startswith("jpeg-q50_on_samples")
    with composed("evaluate", ["model=png", "data=samples"]) as config:
        assert evaluation_folder(config).path.name.startswith("png_on_samples")
