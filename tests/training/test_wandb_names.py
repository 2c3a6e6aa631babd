"""Whatever a run, its project, group and tags are called, W&B takes what is made of it; ids stay apart."""

import pytest
import wandb
from wandb.sdk.artifacts._internal_artifact import InternalArtifact

from codec.training.wandb_logger import RATE_DISTORTION
from codec.training.wandb_names import ID_LENGTH, run_id, valid_names

LONG = [
    "n" * 96,
    "n" * 128,
    "a,b",
    "a/b",
    "a:b;c#d?e'f%g\\h",
    "é" * 60,
    "名" * 80,
    " a ",
    "caf\udce9",
    "a+b=c_d.e-f",
]


def asked(**changes: object) -> dict:
    plain = {"project": "p", "group": None, "tags": [], "id": "a-01234567", "name": "a", "job_type": "train"}
    return {**plain, "mode": "offline", **changes}


def settings(names: dict) -> wandb.Settings:
    """W&B's own check of names."""
    return wandb.Settings(
        project=names["project"], run_group=names["group"], run_tags=names["tags"], run_id=names["id"]
    )


@pytest.mark.parametrize("name", LONG)
def test_every_name_of_a_run_gives_an_id_that_w_and_b_takes_and_its_tables_too(name: str) -> None:
    made = run_id(f"{name}-01234567")
    assert settings(valid_names(asked(id=f"{name}-01234567"))).run_id == made
    assert made.isascii()
    assert len(made) <= ID_LENGTH
    for table in ("test/images", RATE_DISTORTION):
        assert len(InternalArtifact(f"run-{made}-{table}", "run_table").name) <= 128


def test_ids_stay_apart_and_are_always_the_same() -> None:
    names = [f"{name}-01234567" for name in (*LONG, "n" * 97, "n" * 129, "a-b", "a;b")]
    assert len({run_id(name) for name in names}) == len(names)
    assert run_id(names[0]) == run_id(names[0])


@pytest.mark.parametrize("name", ["conv_baseline_samples_6bit_mse-0123abcd", "my run-0123abcd", "a=b+c.d-0123abcd"])
def test_a_name_that_can_be_an_id_is_one(name: str) -> None:
    assert run_id(name) == name


@pytest.mark.parametrize(
    ("key", "value", "made"),
    [
        ("project", "a/b", "a-b"),
        ("project", "100%: #1?", "100-- -1-"),
        ("tags", ["", "x"], ["x"]),
    ],
)
def test_what_a_user_has_named_is_changed_with_a_line(
    key: str, value: object, made: object, capsys: pytest.CaptureFixture
) -> None:
    names = valid_names(asked(**{key: value}))
    assert names[key] == made
    assert settings(names)
    assert capsys.readouterr().err == f"W&B: {key}={value} becomes {made}, which W&B takes\n"


@pytest.mark.parametrize(("key", "length"), [("project", 128), ("group", 128), ("name", 128), ("job_type", 128)])
def test_what_is_too_long_is_shortened_and_stays_apart(key: str, length: int) -> None:
    made = [valid_names(asked(**{key: "x" * 200 + end}))[key] for end in "ab"]
    assert [len(name) for name in made] == [length, length]
    assert made[0] != made[1]
    assert valid_names(asked(**{key: "x" * length}))[key] == "x" * length


def test_a_tag_of_79_characters_becomes_one_of_64() -> None:
    (tag,) = valid_names(asked(tags=["t" * 79]))["tags"]
    assert len(tag) == 64
    assert settings(valid_names(asked(tags=["t" * 79]))).run_tags == (tag,)
