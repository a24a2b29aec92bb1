"""A job's environment. From weakest to strongest: the image, PYTHONUNBUFFERED=1, variables, `env`, `-e`, reserved
names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from dstack.errors import UsageError
from dstack.model.project.interpolation import expand
from dstack.model.project.workflow import Values, Variables

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
"""Names whose values dstack sets."""

PLACED = frozenset({"DSTACK_RUNNER", "DSTACK_GPUS", "DSTACK_ATTEMPT"})
"""Reserved names without a value until the job has a runner."""

READONLY = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "OPTIND"})
"""Names that scripts can't set freely in a shell: bash(1) "Shell Variables", and OPTIND in dash(1)."""

PROTECTED = frozenset({"PATH", "HOME", "USER", "SHELL", "PWD", "IFS"})
PROTECTED_PREFIXES = ("LD_", "PYTHON", "BASH_")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Environment(Struct, frozen=True):
    """`values` by name; None means unset. `warnings` are sentences for the user."""

    values: dict[str, str | None]
    warnings: tuple[str, ...] = ()


def build(
    variables: Variables, env: Mapping[str, str], extra: Mapping[str, str], reserved: Mapping[str, str]
) -> Environment:
    """Return what to set in the container of a job that has its runner. Replaces the variables in `env`, the workflow's
    own. `extra` comes from `-e`; `reserved` has the values of the reserved names.

    Raises UsageError if `env` uses an undefined variable.
    """
    known = replacements(variables, reserved)
    env = {name: expand(text, known) for name, text in env.items()}
    values: dict[str, str | None] = {"PYTHONUNBUFFERED": "1"}
    exported, notes = _exported(variables.all)
    values.update(exported)
    for name, value in {**env, **extra}.items():
        if name in READONLY:
            notes.append(f"'{name}' can't be set in the environment because shells reserve the name")
        elif name in RESERVED:
            notes.append(_overridden(name))
        else:
            values[name] = value
    values.update(reserved)
    return Environment(values, tuple(dict.fromkeys(notes)))


def replacements(variables: Variables, reserved: Mapping[str, str]) -> Values:
    """Return what `$x` stands for: the variables, overridden by the reserved names."""
    free = {name: value for name, value in variables.all.items() if name not in RESERVED}
    return {**free, **reserved}


def reserved_values(
    *, run: str, job: str, workflow: str, config_args: str, runner: str, gpus: Iterable[int], attempt: int
) -> dict[str, str]:
    """Return the reserved names and their values for a job that has its runner. DSTACK_GPUS looks like `0,1`."""
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
    """Return warnings about the names of these variables, one sentence each."""
    return _exported(values)[1]


def trouble(name: str) -> str | None:
    """Why this name can't be set in the environment, as the end of a sentence; None if it can."""
    if not IDENTIFIER.fullmatch(name):
        return "is not a valid variable name; use letters, digits and '_', and don't start with a digit"
    if name in READONLY:
        return "can't be set because shells reserve the name"
    return None


def check_name(name: str) -> None:
    """Raise UsageError unless a secret may have this name."""
    words = trouble(name)
    if words:
        raise UsageError(f"'{name}' {words}", hint="dstack secrets set WANDB_API_KEY")


def _overridden(name: str) -> str:
    return f"'{name}' is reserved: dstack's own value replaces the one in 'env' or -e"


def _exported(variables: Mapping[str, str | None]) -> tuple[Values, list[str]]:
    """Return what variables set in the environment: their upper-case names, and their names as written, which win. Also
    return warnings about what they don't set."""
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
            if _settable(key):
                target[key] = value
        if not _settable(name.upper()):
            notes.append(
                f"variable '{name}' does not set {name.upper()} in the environment, as that would change how programs "
                "run; to set it anyway, use 'env'"
                if name.upper() not in READONLY | RESERVED
                else f"variable '{name}' does not set {name.upper()} in the environment: the name is reserved"
            )
    return {**upper, **plain}, notes


def _settable(name: str) -> bool:
    """Whether a variable may set this name in the environment."""
    return not (name in READONLY or name in RESERVED or name in PROTECTED or name.startswith(PROTECTED_PREFIXES))
