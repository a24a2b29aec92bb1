"""Variables of a run: overrides, and `$config_args`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from dstack.errors import UsageError
from dstack.model.environment import RESERVED
from dstack.model.graph import closure
from dstack.model.project import Project
from dstack.model.suggest import did_you_mean
from dstack.model.workflow import Values, Variables

TRUE = frozenset({"true", "True", "TRUE"})
LEFT_OUT = frozenset({"false", "False", "FALSE", "None"})
"""Texts that leave an option out of `$config_args`, as null does."""


def apply(project: Project, workflow: str, overrides: Sequence[tuple[str, str]]) -> dict[str, Variables]:
    """The variables of the workflow and of all that it needs, by workflow, with the command line's values.

    A variable of the named workflow's own is changed there alone, a global one for every job. `-` may stand for `_`.
    Raises UsageError for a name that is neither.
    """
    needed = closure(project.workflows, workflow)
    shared = dict(project.shared)
    named = dict(project.own.get(workflow, {}))
    for name, text in overrides:
        _check(name, text)
        scope, variable = _find(name, named, shared)
        if scope is None:
            raise _unknown(project, workflow, name, [*named, *shared])
        scope[variable] = text
    return {
        each.name: Variables(shared=shared, own=named if each.name == workflow else project.own.get(each.name, {}))
        for each in needed
    }


def config_args(own: Mapping[str, str | None]) -> str:
    """The workflow's own variables as `--name value`, quoted for a shell, in the order of the file.

    A true one gives the bare flag; false, `None`, null and names that are reserved give nothing.
    """
    words: list[str] = []
    for name, value in own.items():
        if value is None or value in LEFT_OUT or name in RESERVED:
            continue
        words.append(f"--{name}")
        if value not in TRUE:
            words.append(shlex.quote(value))
    return " ".join(words)


def _find(name: str, own: Values, shared: Values) -> tuple[Values | None, str]:
    """Where the variable lives, and its name there."""
    for variable in (name, name.replace("-", "_")):
        for scope in (own, shared):
            if variable in scope:
                return scope, variable
    return None, name


def _check(name: str, text: str) -> None:
    try:
        clean = "\0" not in text
        text.encode()
    except UnicodeEncodeError:
        clean = False
    if not clean:
        raise UsageError(f"the value of --{name} is not text in UTF-8")


def _unknown(project: Project, workflow: str, name: str, choices: list[str]) -> UsageError:
    plain = name.replace("-", "_")
    owners = [other for other, own in project.own.items() if plain in own]
    if owners:
        message = f"'{plain}' is a variable of workflow '{owners[0]}', not of '{workflow}', and can't be set here"
    else:
        message = f"workflow '{workflow}' has no variable '{name}'{did_you_mean(name, choices)}"
    return UsageError(message, hint=f"dstack run {workflow} --help lists its variables")
