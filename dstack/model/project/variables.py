"""The variables of a run: overrides and `$config_args`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from dstack.errors import UsageError
from dstack.model.project.environment import RESERVED
from dstack.model.project.graph import closure
from dstack.model.project.project import Project
from dstack.model.project.workflow import Variables
from dstack.model.text.suggest import did_you_mean

TRUE = frozenset({"true", "True", "TRUE"})
LEFT_OUT = frozenset({"false", "False", "FALSE", "None"})
"""Values that, like null, leave a variable out of `$config_args`."""


def apply(project: Project, workflow: str, overrides: Sequence[tuple[str, str]]) -> dict[str, Variables]:
    """Return the variables, by workflow, of the workflow and everything it depends on, with the overrides applied. An
    override of one of the workflow's own variables applies to that workflow only; an override of a global variable
    applies to every job. `-` may be written for `_`. Raises UsageError for an unknown variable."""
    needed = closure(project.workflows, workflow)
    shared = dict(project.shared)
    named = dict(project.own.get(workflow, {}))
    for name, text in overrides:
        if "\0" in text or re.search("[\ud800-\udfff]", text):
            words = "is not text: it contains a NUL character or bytes that are not UTF-8"
            raise UsageError(f"the value of --{name} {words}")
        found = [(scope, each) for each in (name, name.replace("-", "_")) for scope in (named, shared) if each in scope]
        if not found:
            raise _unknown(project, workflow, name, [*named, *shared])
        scope, variable = found[0]
        scope[variable] = text
    return {
        each.name: Variables(shared=shared, own=named if each.name == workflow else project.own.get(each.name, {}))
        for each in needed
    }


def config_args(own: Mapping[str, str | None]) -> str:
    """Return the workflow's own variables as `--name value`, quoted for a shell, in file order. True values become a
    bare flag. False, `None`, null and reserved names are left out."""
    return " ".join(
        f"--{name}" if value in TRUE else f"--{name} {shlex.quote(value)}"
        for name, value in own.items()
        if not (value is None or value in LEFT_OUT or name in RESERVED)
    )


def _unknown(project: Project, workflow: str, name: str, choices: list[str]) -> UsageError:
    plain = name.replace("-", "_")
    owners = [other for other, own in project.own.items() if plain in own]
    if owners:
        message = f"'{plain}' is a variable of workflow '{owners[0]}'; a run of '{workflow}' can't set it"
    else:
        message = f"workflow '{workflow}' has no variable '{name}'{did_you_mean(name, choices)}"
    return UsageError(message, hint=f"list its variables: dstack run {workflow} --help")
