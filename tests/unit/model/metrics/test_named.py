"""Metrics that a workflow names by regular expressions."""

from __future__ import annotations

import pytest

from dstack.model.metrics.goal import goal_of
from dstack.model.metrics.named import Named, beginning, trouble


@pytest.mark.parametrize(
    ("expression", "line", "value"),
    [
        (r"loss=(\S+)", "step 1 loss=0.5, acc=1", 0.5),
        (r"^loss ?= ?(.*)", "loss = 1e-5", 1e-5),
        (r"^loss ?= ?(.*)", "loss=-inf", float("-inf")),
        (r"los{1,2}:\s*([\d.]+)", "los: 3", 3),
        (r"a|loss (\d+)", "loss 7", 7),
        (r"(?i)LOSS (\d+)", "Loss 7", 7),
        (r"acc (\S+)", "acc 91%", 91),
        (r"acc (\S+)", "acc high", None),
        (r"acc (\d+)?", "acc high", None),
        (r"acc (\S+)", "acc 1_000", None),
        (r"acc (\S+)", "loss 1", None),
    ],
)
def test_an_expression_takes_a_number(expression: str, line: str, value: float | None) -> None:
    assert Named({"x": expression}).read(line) == (None, [] if value is None else [("x", value)])


def test_a_step_stays_until_the_next_one() -> None:
    reader = Named({"step": r"epoch (\S+)", "loss": r"loss (\S+)"})
    lines = ["loss 1", "epoch 2", "loss 2", "epoch nan loss 3", "epoch 3 loss 4"]
    assert [reader.read(line) for line in lines] == [
        (None, [("loss", 1)]),
        (2, []),
        (2, [("loss", 2)]),
        (2, [("loss", 3)]),
        (3, [("loss", 4)]),
    ]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (r"val_loss=(\S+)", "val_loss="),
        (r"val_loss[=: ]+(\S+)", "val_loss"),
        (r"^step (\d+)", "step "),
        (r"ab?(\d)", "a"),
        (r"ab{0}(\d)", "a"),
        (r"\bloss (\d)", ""),
        (r"a|b(\d)", ""),
        (r"a(?i)b(\d)", ""),
        (r"(\d)", ""),
    ],
)
def test_the_text_that_every_match_begins_with(expression: str, text: str) -> None:
    assert beginning(expression) == text


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(", "is not a valid regular expression"),
        ("a", "has 0"),
        ("(a)(b)", "has 2"),
        ("(?:a)(b)", None),
        ("(" * 5000, "valid"),
    ],
)
def test_what_is_wrong_with_an_expression(expression: str, words: str | None) -> None:
    told = trouble(expression)
    assert told is None if words is None else told and words in told


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("val_loss", "minimize"),
        ("valLoss", "minimize"),
        ("eval-rmse", "minimize"),
        ("Train/Top5-Error", "minimize"),
        ("accuracy", "maximize"),
        ("loss_accuracy", "maximize"),
        ("val.f1", "maximize"),
        ("lr", None),
        ("epoch", None),
        ("grad_norm", None),
    ],
)
def test_a_name_tells_what_is_better(name: str, goal: str | None) -> None:
    assert goal_of(name) == goal
