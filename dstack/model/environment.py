"""What a job finds in its environment, weakest first: the image's own, PYTHONUNBUFFERED=1, the variables, `env`,
`-e`, and the reserved names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from dstack.errors import UsageError
from dstack.model.graph import closure
from dstack.model.interpolation import expand
from dstack.model.workflow import Values, Variables

if TYPE_CHECKING:
    from dstack.model.project import Project

RESERVED = frozenset(
    {
        "run_name",
        "job_id",
        "config_args",
        "DSTACK_RUN_NAME",
        "DSTACK_JOB_ID",
        "DSTACK_WORKFLOW",
        "DSTACK_RUNNER",
        "DSTACK_GPUS",
        "DSTACK_ATTEMPT",
    }
)
"""Names whose values are dstack's own."""

PLACED = frozenset({"DSTACK_RUNNER", "DSTACK_GPUS", "DSTACK_ATTEMPT"})
"""Those that have no value before the job has a machine."""

READONLY = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "OPTIND"})
"""Names that a shell does not let a script set to any text: bash(1) "Shell Variables", and OPTIND in dash(1)."""

PROTECTED = frozenset({"PATH", "HOME", "USER", "SHELL", "PWD", "IFS"})
PROTECTED_PREFIXES = ("LD_", "PYTHON", "BASH_")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Environment(Struct, frozen=True):
    """`values` by name; None is a name to unset. `warnings` are for the user, a sentence each."""

    values: dict[str, str | None]
    warnings: tuple[str, ...] = ()


def build(
    variables: Variables, env: Mapping[str, str], extra: Mapping[str, str], reserved: Mapping[str, str]
) -> Environment:
    """What to set in a container. `env` is the workflow's, as written: here, where the job has its machine, its
    variables are replaced. `extra` is what `-e` gave, `reserved` the values of the reserved names.

    Raises UsageError for an `env` that holds an undefined variable.
    """
    known = replacements(variables, reserved)
    env = {name: expand(text, known) for name, text in env.items()}
    values: dict[str, str | None] = {"PYTHONUNBUFFERED": "1"}
    kept, notes = _admitted(variables.all)
    values.update(kept)
    for name, value in {**env, **extra}.items():
        if name in READONLY:
            notes.append(f"'{name}' can't be set in the environment: shells forbid it")
        elif name in RESERVED:
            notes.append(_overridden(name))
        else:
            values[name] = value
    values.update(reserved)
    return Environment(values, tuple(dict.fromkeys(notes)))


def replacements(variables: Variables, reserved: Mapping[str, str]) -> Values:
    """What `$x` stands for: the variables and, before them, the reserved names."""
    free = {name: value for name, value in variables.all.items() if name not in RESERVED}
    return {**free, **reserved}


def reserved_values(
    *, run: str, job: str, workflow: str, config_args: str, runner: str, gpus: Iterable[int], attempt: int
) -> dict[str, str]:
    """The reserved names with their values, for a job that has its machine. DSTACK_GPUS reads like `0,1`."""
    return {
        "run_name": run,
        "job_id": job,
        "config_args": config_args,
        "DSTACK_RUN_NAME": run,
        "DSTACK_JOB_ID": job,
        "DSTACK_WORKFLOW": workflow,
        "DSTACK_RUNNER": runner,
        "DSTACK_GPUS": ",".join(str(gpu) for gpu in gpus),
        "DSTACK_ATTEMPT": str(attempt),
    }


def variable_warnings(values: Mapping[str, str | None]) -> list[str]:
    """What a user should know about the names of these variables, a sentence each."""
    return _admitted(values)[1]


def warnings(project: Project, workflow: str) -> tuple[str, ...]:
    """What the user should know before the workflow and all that it needs are run: a sentence a name."""
    notes: dict[str, None] = {}
    for each in closure(project.workflows, workflow):
        notes.update(dict.fromkeys(variable_warnings({**project.shared, **project.own.get(each.name, {})})))
        notes.update(dict.fromkeys(_overridden(name) for name in each.env if name in RESERVED))
    return tuple(notes)


def trouble(name: str) -> str | None:
    """Why `env` or `-e` can't set this name, as the end of a sentence; None if it can."""
    if not IDENTIFIER.fullmatch(name):
        return "is no name of an environment variable: letters, digits and '_', not beginning with a digit"
    if name in READONLY:
        return "can't be set: shells forbid it"
    return None


def check_name(name: str) -> None:
    """Raise UsageError unless `-e` can set this name."""
    words = trouble(name)
    if words:
        raise UsageError(f"'{name}' {words}", hint="write -e NAME=VALUE")


def _overridden(name: str) -> str:
    return f"'{name}' is reserved: what is set for it in the environment gives way to dstack's own value"


def _admitted(variables: Mapping[str, str | None]) -> tuple[Values, list[str]]:
    """What variables put into the environment: their upper-case names, then (they win) the names themselves; and
    warnings about what stays out."""
    upper: Values = {}
    plain: Values = {}
    notes: list[str] = []
    for name, value in variables.items():
        if name in RESERVED:
            notes.append(
                f"variable '{name}' has a reserved name: ${name} is dstack's own value, and $config_args leaves the "
                "variable out; rename it"
            )
            continue
        for target, key in ((plain, name), (upper, name.upper())):
            if _open(key):
                target[key] = value
        if not _open(name.upper()):
            notes.append(
                f"variable '{name}' does not set {name.upper()} in the environment: that would change how programs "
                "run; use 'env' if you mean it"
                if name.upper() not in READONLY | RESERVED
                else f"variable '{name}' does not set {name.upper()} in the environment: the name is taken"
            )
    return {**upper, **plain}, notes


def _open(name: str) -> bool:
    """Whether a variable may set this name in the environment."""
    return not (name in READONLY or name in RESERVED or name in PROTECTED or name.startswith(PROTECTED_PREFIXES))
