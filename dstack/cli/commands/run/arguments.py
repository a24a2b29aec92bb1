"""Sorts the words of `dstack run`: options before or after the workflow's name, variables after it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import click

from dstack.errors import UsageError
from dstack.model.text.suggest import did_you_mean

NEGATIVE = re.compile(r"-(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
HELP = ("-h", "--help")


@dataclass
class Walk:
    """The sorted words. `options` are those of `run` itself, for click to parse; `overrides` are the variables;
    `replayed` is the run to repeat."""

    options: list[str] = field(default_factory=list)
    workflow: str | None = None
    overrides: list[tuple[str, str]] = field(default_factory=list)
    replayed: str | None = None
    help: bool = False


def walk(
    words: Sequence[str],
    parameters: Sequence[click.Parameter],
    variables: Callable[[str], Collection[str]],
    replayed: Callable[[str], Collection[str]] | None = None,
) -> Walk:
    """Sort the words. `variables` returns the names of a workflow's variables, `replayed` those of the run given with
    --from. Raises UsageError for a word that is neither an option, a variable nor a value."""
    return _Walker(list(words), _takes_value(parameters), variables, replayed).walk()


def _takes_value(parameters: Sequence[click.Parameter]) -> dict[str, bool]:
    """Every spelling of every option, and whether it takes a value."""
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    return {name: not option.is_flag for option in options for name in (*option.opts, *option.secondary_opts)}


class _Walker:
    def __init__(
        self,
        words: list[str],
        takes_value: dict[str, bool],
        variables: Callable[[str], Collection[str]],
        replayed: Callable[[str], Collection[str]] | None,
    ) -> None:
        self._words = words
        self._takes_value = takes_value
        self._variables = variables
        self._replayed = replayed
        self._known: Collection[str] = ()
        self._result = Walk()

    def walk(self) -> Walk:
        only_variables = False
        while self._words:
            word = self._words.pop(0)
            if word == "--" and not only_variables:
                only_variables = self._named
            elif word.startswith("--") and len(word) > 2:
                self._long(word, only_variables)
            elif word.startswith("-") and len(word) > 1 and not NEGATIVE.fullmatch(word):
                self._short(word)
            elif self._result.replayed is not None:
                raise UsageError(
                    f"unexpected word '{word}'; --from {self._result.replayed} already chooses the workflow",
                    hint="write variables as --name value, and quote values with spaces",
                )
            elif self._result.workflow is None:
                self._result.workflow = word
                self._known = self._variables(word)
            else:
                raise UsageError(
                    f"unexpected word '{word}' after workflow '{self._result.workflow}'",
                    hint="write variables as --name value, and quote values with spaces",
                )
            if self._result.help:
                break
        return self._result

    @property
    def _named(self) -> bool:
        """Whether the workflow or the run to repeat is known, so variables may follow."""
        return self._result.workflow is not None or self._result.replayed is not None

    def _long(self, word: str, only_variables: bool) -> None:
        name, equals, value = word[2:].partition("=")
        option = f"--{name}"
        variable = name in self._known or name.replace("-", "_") in self._known
        if self._named and (variable or only_variables):
            self._override(name, value if equals else None)
        elif option in HELP:
            self._result.help = True
        elif option in self._takes_value:
            self._option(option, word, bool(equals))
        elif not self._named:
            raise UsageError(
                f"unknown option {option}{did_you_mean(option, self._takes_value)}",
                hint="write a workflow's variables after its name: dstack run WORKFLOW --name value",
            )
        else:
            near = did_you_mean(name, [*self._known, *(known[2:] for known in self._takes_value)])
            if near and not did_you_mean(name, self._known):
                raise UsageError(
                    f"unknown option {option}{did_you_mean(option, self._takes_value)}", hint="dstack run --help"
                )
            self._override(name, value if equals else None)

    def _override(self, name: str, value: str | None) -> None:
        if value is None:
            value = self._words.pop(0) if self._words and is_value(self._words[0]) else "True"
        self._result.overrides.append((name, value))

    def _option(self, option: str, word: str, complete: bool) -> None:
        self._result.options.append(word)
        if self._takes_value[option] and not complete:
            if not self._words:
                raise UsageError(f"option {option} needs a value", hint="dstack run --help")
            self._result.options.append(self._words.pop(0))
        if option == "--from" and self._replayed is not None:
            self._replay(word.partition("=")[2] if complete else self._result.options[-1])

    def _replay(self, run: str) -> None:
        if self._result.workflow is not None:
            raise UsageError("--from RUN already chooses the workflow; leave out the workflow's name")
        self._result.replayed = run
        if self._replayed is not None:
            self._known = self._replayed(run)

    def _short(self, word: str) -> None:
        """`-d`, `-dq`, `-e K=V`, `-eK=V`."""
        for index, letter in enumerate(word[1:], 1):
            option = f"-{letter}"
            if option in HELP:
                self._result.help = True
                return
            if option not in self._takes_value:
                raise UsageError(f"unknown option {option}", hint="dstack run --help")
            if self._takes_value[option]:
                self._option(option, word, index < len(word) - 1)
                return
        self._result.options.append(word)


def is_value(word: str) -> bool:
    """Whether a word after `--name` is its value. A word that begins with '-' is one only if it is a number."""
    return not word.startswith("-") or word == "-" or NEGATIVE.fullmatch(word) is not None
