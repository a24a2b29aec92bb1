"""The walk over the words of `dstack run`."""

from __future__ import annotations

import pytest

from dstack.cli.commands.run.arguments import Walk, is_value
from dstack.cli.commands.run.command import command
from dstack.errors import UsageError

VARIABLES = {"batch_size": "1", "name": "run1", "seed": None, "amp": "False", "fast": "true", "help": "me", "note": ""}


def test_the_hint_for_a_missing_value_can_be_pasted() -> None:
    for words in (["train"], ["--from", "brave-otter-7"]):
        with pytest.raises(UsageError) as caught:
            walked(*words, "--batch-size")
        assert (caught.value.hint or "").startswith(f"dstack run {' '.join(words)} --batch-size VALUE; ")


def walked(*words: str) -> Walk:
    return Walk(words, command.params, lambda workflow: VARIABLES, lambda run: VARIABLES)


@pytest.mark.parametrize(
    ("words", "options", "overrides"),
    [
        ("-d train", ["-d"], []),
        ("train -d", ["-d"], []),
        ("-dq train", ["-dq"], []),
        ("--name x train --name y", ["--name", "x"], [("name", "y")]),
        ("train --name=y --runner lab1", ["--runner", "lab1"], [("name", "y")]),
        ("train --batch_size 4 --amp --fast", [], [("batch_size", "4"), ("amp", "True"), ("fast", "True")]),
        ("train --help=you --seed 1", [], [("help", "you"), ("seed", "1")]),
        ("train -- --help you --amp", [], [("help", "you"), ("amp", "True")]),
        ("train --amp False --fast", [], [("amp", "False"), ("fast", "True")]),
        ("train --batch-size -4 --seed -1e-3", [], [("batch-size", "-4"), ("seed", "-1e-3")]),
        ("train --seed=--x --amp=", [], [("seed", "--x"), ("amp", "")]),
        ("train --amp -q --seed 1", ["-q"], [("amp", "True"), ("seed", "1")]),
        ("-e A=1 train -eB=2 -e C=3", ["-e", "A=1", "-eB=2", "-e", "C=3"], []),
        ("--runner=lab1 train", ["--runner=lab1"], []),
        ("train -- --json x", [], [("json", "x")]),
        ("train --unheard 1", [], [("unheard", "1")]),
        ("train --seed -", [], [("seed", "-")]),
    ],
)
def test_sorts_words(words: str, options: list[str], overrides: list[tuple[str, str]]) -> None:
    found = walked(*words.split())

    assert (found.options, found.workflow, found.overrides) == (options, "train", overrides)


def test_help_is_for_what_came_before_it() -> None:
    assert walked("--help").workflow is None
    assert walked("train", "--help").workflow == "train"
    assert walked("-dh").help
    assert walked("train", "-h").help
    assert not walked("train", "--seed", "1").help
    assert walked("train", "--help", "you").help


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--quite train", "unknown option --quite; did you mean '--quiet'?"),
        ("--batch_size 2 train", "unknown option --batch_size"),
        ("train --quite", "unknown option --quite; did you mean '--quiet'?"),
        ("-z train", "unknown option -z"),
        ("train two", "unexpected word 'two'"),
        ("train --batch_size", "--batch_size needs a value, because its default is 1"),
        ("train --batch-size --amp", "--batch-size needs a value, because its default is 1"),
        ("train --batch_size -x", "--batch_size needs a value, because its default is 1"),
        ("train --seed", "--seed needs a value, because its default is null"),
        ("train --note -q", "--note needs a value, because its default is empty"),
        ("--from brave-otter-7 --name", "--name needs a value"),
        ("--runner", "option --runner needs a value"),
        ("train -e", "option -e needs a value"),
    ],
)
def test_refuses(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        walked(*words.split())


@pytest.mark.parametrize("word", ["1", "-1", "-1.5", "-.5", "-2.", "-1e5", "-1E-5", "-", "", "a b"])
def test_values(word: str) -> None:
    assert is_value(word)


@pytest.mark.parametrize("word", ["--x", "-x", "-1x", "-e5", "-."])
def test_no_values(word: str) -> None:
    assert not is_value(word)
