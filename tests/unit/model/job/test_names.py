from __future__ import annotations

import random
import re
import secrets

import pytest

from dstack.errors import UsageError
from dstack.model.job import names
from dstack.model.text.suggest import did_you_mean, nearest


def test_run_names_read_like_brave_otter_7() -> None:
    rng = random.Random(1)
    for _ in range(100):
        name = names.run_name(lambda name: False, rng)
        assert re.fullmatch(r"[a-z]+-[a-z]+-[1-9]", name)
        names.check_run_name(name)


def test_a_run_name_is_not_taken_even_where_nearly_all_are() -> None:
    name = names.run_name(lambda name: len(name.split("-")[2]) < 3, random.Random(1))
    assert len(name.split("-")[2]) == 3


def test_job_ids_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter(["123456789012", "12345e678901", "12345e67890a"])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(given))
    assert names.job_id() == "12345e67890a"
    monkeypatch.undo()
    found = {names.job_id() for _ in range(1000)}
    assert len(found) == 1000
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in found)


@pytest.mark.parametrize("name", ["a", "brave-otter-7", "exp_1.5", "A" * 63, "0a1b", "deadbeef0123x"])
def test_names_for_runs(name: str) -> None:
    names.check_run_name(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "a\n", "é", "A" * 64, "..", "deadbeef0123"])
def test_names_that_no_run_can_have(name: str) -> None:
    with pytest.raises(UsageError):
        names.check_run_name(name)


@pytest.mark.parametrize(
    ("word", "choices", "expected"),
    [
        ("artefacts", ["artifacts", "name"], "artifacts"),
        ("trian", ["train", "brain"], "train"),
        ("Model", ["model"], "model"),
        ("learning-rate", ["learning_rate"], "learning_rate"),
        ("fine", ["finetune-model", "train"], "finetune-model"),
        ("fine", ["finetune-model", "finetune"], None),
        ("a", ["b", "c"], None),
        ("cache", ["name", "image", "commands", "help", "user", "env"], None),
        ("", ["a"], None),
        ("x", [], None),
        ("lr", ["lr", "l"], "lr"),
    ],
)
def test_the_nearest_name(word: str, choices: list[str], expected: str | None) -> None:
    assert nearest(word, choices) == expected


def test_did_you_mean() -> None:
    assert did_you_mean("trian", ["train"]) == "; did you mean 'train'?"
    assert did_you_mean("zzz", ["train"]) == ""
