"""Errors of the user: what is known of each is in its fields, and its text follows from them."""

import pickle

import pytest

from codec.checks import check_integer, check_positive, together
from codec.data.download import DownloadError
from codec.data.source import SourceError
from codec.errors import ArgumentError, ConfigError, FaultsError, UserError, did_you_mean, number_of


@pytest.mark.parametrize(
    ("about", "key", "value", "text"),
    [
        (("SLURM does not answer",), None, None, "SLURM does not answer"),
        (("model", "a training needs one"), "model", None, "model: a training needs one"),
        (("epochs", 0, "allowed are 1 and 2"), "epochs", 0, "epochs=0: allowed are 1 and 2"),
        (("data.crop_size", None, "too large"), "data.crop_size", None, "data.crop_size=null: too large"),
        (("devices", (0, 1), "too many"), "devices", (0, 1), "devices=[0, 1]: too many"),
    ],
)
def test_the_text_of_an_error_follows_from_its_fields(about, key, value, text) -> None:
    error = ConfigError(*about)
    assert (error.key, error.value, error.allowed, str(error)) == (key, value, about[-1], text)
    assert error.faults == [error]
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), again.args, str(again)) == (ConfigError, about, text)


def test_an_error_of_a_part_is_told_by_the_key_of_the_whole() -> None:
    within = SourceError("root", "nowhere", "no such folder").below("sources.mine").below("data.train")
    assert isinstance(within, SourceError)
    assert (within.key, within.value) == ("data.train.sources.mine.root", "nowhere")
    assert str(UserError("no model is called x").below("pretrained")) == "pretrained: no model is called x"


def test_an_error_that_is_another_library_s_kind_too_tells_its_own_text() -> None:
    with pytest.raises(OSError, match="^cannot be fetched$"):
        raise DownloadError("cannot be fetched")


def test_of_several_checks_all_that_fail_are_raised_together() -> None:
    with pytest.raises(FaultsError, match="^a=0: .* from 1\nb=-1: .* above 0$") as raised, together() as check:
        check(check_integer, "a", 0, 1)
        check(check_integer, "fine", 1, 1)
        check(check_positive, "b", -1)
    assert [fault.key for fault in raised.value.faults] == ["a", "b"]
    with pytest.raises(ArgumentError, match="^a=0: "), together() as check:
        check(check_integer, "a", 0, 1)


@pytest.mark.parametrize(("count", "said"), [(0, "0 images"), (1, "1 image"), (1200, "1,200 images")])
def test_one_is_counted_in_the_singular(count: int, said: str) -> None:
    assert number_of(count, "image") == said


def test_the_nearest_name_is_meant_or_none() -> None:
    assert did_you_mean("widht", ["width", "depth"], within="model.") == "; did you mean model.width?"
    assert did_you_mean("x", ["width", "depth"]) == ""
