from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.errors import UsageError
from dstack.model.project.project import Project
from dstack.model.project.variables import apply, config_args
from dstack.model.project.workflow import Variables
from tests.unit.model.project.projects import project


@pytest.fixture(scope="module")
def found() -> Project:
    return project(
        """
workflows:
- {name: prepare, image: i, commands: [c]}
- {name: train, image: i, commands: [c], depends-on: {workflows: [prepare]}}
- {name: other, image: i, commands: [c]}
""",
        """
configs:
  global: {model: 124M, seed: 1}
  prepare: {learning_rate: 7, seed: 5, chunk: 3}
  train: {learning_rate: 0.1, epochs: 2, model: own}
""",
    )


def test_without_overrides(found: Project) -> None:
    variables = apply(found, "train", [])
    assert list(variables) == ["prepare", "train"]
    assert variables["prepare"] == Variables(found.shared, found.own["prepare"])
    assert variables["train"].all == {"model": "own", "seed": "1", "learning_rate": "0.1", "epochs": "2"}


def test_an_own_variable_is_changed_for_the_named_workflow_only(found: Project) -> None:
    variables = apply(found, "train", [("learning_rate", "0.2")])
    assert variables["train"].own["learning_rate"] == "0.2"
    assert variables["prepare"].own["learning_rate"] == "7"
    assert list(variables["train"].own) == ["learning_rate", "epochs", "model"]
    assert found.own["train"]["learning_rate"] == "0.1"


def test_a_global_variable_is_changed_for_every_job(found: Project) -> None:
    variables = apply(found, "prepare", [("model", "117M")])
    assert variables["prepare"].all["model"] == "117M"
    variables = apply(found, "train", [("seed", "9")])
    assert variables["train"].all["seed"] == "9"
    assert variables["prepare"].shared["seed"] == "9"
    assert variables["prepare"].all["seed"] == "5", "its own wins"
    assert found.shared["seed"] == "1"


def test_an_own_variable_hides_the_global_one(found: Project) -> None:
    variables = apply(found, "train", [("model", "117M")])
    assert variables["train"].all["model"] == "117M"
    assert variables["prepare"].all["model"] == "124M"


def test_dashes_stand_for_underscores_and_the_last_one_wins(found: Project) -> None:
    variables = apply(found, "train", [("learning-rate", "0.2"), ("learning_rate", "0.3")])
    assert variables["train"].own["learning_rate"] == "0.3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epoch", "workflow 'train' has no variable 'epoch'; did you mean 'epochs'?"),
        ("modle", "workflow 'train' has no variable 'modle'; did you mean 'model'?"),
        ("zzz", "workflow 'train' has no variable 'zzz'"),
        ("chunk", "'chunk' is a variable of workflow 'prepare'; a run of 'train' can't set it"),
    ],
)
def test_an_unknown_variable(found: Project, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply(found, "train", [(name, "1")])
    assert caught.value.message == message
    assert caught.value.hint == "list its variables: dstack run train --help"


def test_an_unknown_workflow(found: Project) -> None:
    with pytest.raises(UsageError, match="no workflow is named 'trian'; did you mean 'train'"):
        apply(found, "trian", [])


@pytest.mark.parametrize("text", ["\udcff", "a\0b"])
def test_what_is_not_text_is_refused(found: Project, text: str) -> None:
    with pytest.raises(
        UsageError, match="--epochs is not text: it contains a NUL character or bytes that are not UTF-8"
    ):
        apply(found, "train", [("epochs", text)])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("True", "--x"),
        ("true", "--x"),
        ("TRUE", "--x"),
        ("False", ""),
        ("false", ""),
        ("FALSE", ""),
        ("None", ""),
        (None, ""),
        ("on", "--x on"),
        ("off", "--x off"),
        ("yes", "--x yes"),
        ("none", "--x none"),
        ("null", "--x null"),
        ("", "--x ''"),
        ("0", "--x 0"),
        ("-1", "--x -1"),
        ("2 words", "--x '2 words'"),
        ("$HOME", "--x '$HOME'"),
        ("it's", "--x 'it'\"'\"'s'"),
    ],
)
def test_config_args(value: str | None, expected: str) -> None:
    assert config_args({"x": value}) == expected


def test_config_args_keeps_the_order_and_leaves_reserved_names_out() -> None:
    assert config_args({"z": "1", "run_name": "r", "a": "True", "job_id": "j", "m": "2"}) == "--z 1 --a --m 2"


SHELLS = ["sh", "bash"]
CLEAN = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60)
@given(values=st.lists(CLEAN, min_size=1, max_size=4))
def test_a_shell_reads_config_args_as_they_were(shell: str, values: list[str]) -> None:
    own = {f"v{index}": value for index, value in enumerate(values)}
    expected = []
    for name, value in own.items():
        if value in {"True", "true", "TRUE"}:
            expected.append(f"--{name}")
        elif value not in {"False", "false", "FALSE", "None"}:
            expected += [f"--{name}", value]
    said = subprocess.run([shell, "-c", f"printf '%s\\0' {config_args(own)}"], capture_output=True, check=True)
    assert said.stdout.decode().split("\0")[:-1] == (expected or [""])
