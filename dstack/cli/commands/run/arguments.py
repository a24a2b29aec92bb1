"""Sorts the words of `dstack run` and `dstack sweep`: options before or after the workflow's name, then variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import click

from dstack.errors import UsageError
from dstack.model.text.suggest import did_you_mean

NEGATIVE = re.compile(r"-(\d+(\.\d*?)?|\.\d+)([eE][+-]?\d+)?((,|\.\.)[-+.\d].*)?")
HELP = ("-h", "--help")
BOOLEANS = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
"""Defaults of the variables that can be given as a bare flag."""
Defaults = Mapping[str, str | None]


class Walk:
    """The sorted words. `options` are those of the command itself, for click to parse; `overrides` are the variables;
    `replayed` is the run to repeat.

    `variables` returns a workflow's variables and their defaults, `recorded` those of the run given with --from. Raises
    UsageError for a word that is neither an option, a variable nor a value, and for a value that is missing.
    """

    def __init__(
        self,
        words: Sequence[str],
        parameters: Sequence[click.Parameter],
        variables: Callable[[str], Defaults],
        recorded: Callable[[str], Defaults],
        command: str = "dstack run",
    ) -> None:
        self._command = command
        self.options: list[str] = []
        self.workflow: str | None = None
        self.overrides: list[tuple[str, str]] = []
        self.replayed: str | None = None
        self.help = False
        self._words = list(words)
        options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
        self._takes_value = {name: not option.is_flag for option in options for name in option.opts}
        self._variables = variables
        self._recorded = recorded
        self._known: Defaults = {}
        self._walk()

    def _walk(self) -> None:
        only_variables = False
        while self._words and not self.help:
            word = self._words.pop(0)
            if word == "--" and not only_variables:
                only_variables = self._named
            elif word.startswith("--") and len(word) > 2:
                self._long(word, only_variables)
            elif is_value(word):
                self._name(word)
            else:
                self._short(word)

    @property
    def _named(self) -> bool:
        """Whether the workflow or the run to repeat is known, so variables may follow."""
        return self.workflow is not None or self.replayed is not None

    def _name(self, word: str) -> None:
        if self._named:
            replayed = f"; --from {self.replayed} already chooses the workflow"
            why = replayed if self.workflow is None else f" after workflow '{self.workflow}'"
            hint = "write variables as --name value, and quote values with spaces"
            raise UsageError(f"unexpected word '{word}'{why}", hint=hint)
        self.workflow = word
        self._known = self._variables(word)

    def _long(self, word: str, only_variables: bool) -> None:
        name, equals, value = word[2:].partition("=")
        option = f"--{name}"
        variable = name in self._known or name.replace("-", "_") in self._known
        if option in HELP and not equals and not only_variables:
            self.help = True
        elif self._named and (variable or only_variables):
            self._override(name, value if equals else None)
        elif option in self._takes_value:
            self._option(option, word, bool(equals))
        elif not self._named:
            hint = f"write a workflow's variables after its name: {self._command} WORKFLOW --name value"
            raise self._unknown(option, hint)
        else:
            near = did_you_mean(name, [*self._known, *(known[2:] for known in self._takes_value)])
            if near and not did_you_mean(name, self._known):
                raise self._unknown(option)
            self._override(name, value if equals else None)

    def _unknown(self, option: str, hint: str | None = None) -> UsageError:
        message = f"unknown option {option}{did_you_mean(option, self._takes_value)}"
        return UsageError(message, hint=hint or f"{self._command} --help")

    def _override(self, name: str, value: str | None) -> None:
        if value is None:
            value = self._words.pop(0) if self._words and is_value(self._words[0]) else self._flag(name)
        self.overrides.append((name, value))

    def _flag(self, name: str) -> str:
        """Return the value of a bare --name. Raises UsageError unless it can be one: its default is true or false."""
        variable = name if name in self._known else name.replace("-", "_")
        default = self._known.get(variable, "False")
        if default in BOOLEANS:
            return "True"
        before = f"dstack run --from {self.replayed}" if self.workflow is None else f"{self._command} {self.workflow}"
        hint = f"{before} --{name} VALUE; a value that begins with '-' is written --{name}=VALUE"
        raise UsageError(f"--{name} needs a value, because its default is {default_words(default)}", hint=hint)

    def _option(self, option: str, word: str, complete: bool) -> None:
        self.options.append(word)
        if self._takes_value[option] and not complete:
            if not self._words:
                raise UsageError(f"option {option} needs a value", hint=f"{self._command} --help")
            self.options.append(self._words.pop(0))
        if option == "--from":
            if self.workflow is not None:
                raise UsageError("--from RUN already chooses the workflow; leave out the workflow's name")
            self.replayed = word.partition("=")[2] if complete else self.options[-1]
            self._known = self._recorded(self.replayed)

    def _short(self, word: str) -> None:
        """`-d`, `-dq`, `-e K=V`, `-eK=V`."""
        for index, letter in enumerate(word[1:], 1):
            option = f"-{letter}"
            if option in HELP:
                self.help = True
                return
            if option not in self._takes_value:
                raise UsageError(f"unknown option {option}", hint=f"{self._command} --help")
            if self._takes_value[option]:
                self._option(option, word, index < len(word) - 1)
                return
        self.options.append(word)


def is_value(word: str) -> bool:
    """Whether a word after `--name` is its value. A word that begins with '-' is one only if it is a number, or several
    as a sweep takes them."""
    return not word.startswith("-") or word == "-" or NEGATIVE.fullmatch(word) is not None


def default_words(value: str | None) -> str:
    """Format a default for people."""
    return "null" if value is None else value or "empty"
