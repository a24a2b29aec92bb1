"""A job's environment. From weakest to strongest: the image, PYTHONUNBUFFERED=1, variables, `env`, `-e`, reserved
names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dstack.errors import UsageError
from dstack.model.project.interpolation import IDENTIFIER, expand
from dstack.model.project.workflow import Values, Variables

PLACED = frozenset({"DSTACK_RUNNER", "DSTACK_GPUS", "DSTACK_ATTEMPT"})
"""Reserved names without a value until the job has a runner."""

RESERVED = PLACED | {"run_name", "job_id", "config_args", "DSTACK_RUN_NAME", "DSTACK_JOB_ID", "DSTACK_WORKFLOW"}
"""Names whose values dstack sets."""

READONLY = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "OPTIND"})
"""Names that scripts can't set freely in a shell: bash(1) "Shell Variables", and OPTIND in dash(1)."""

SHORTEN = "write the value to a file of the repository, and give the file's name to the job"

_NAMES = """
BASH BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND BASH_LINENO BASH_MONOSECONDS BASH_SOURCE
BASH_SUBSHELL BASH_TRAPSIG BASH_VERSION COMP_WORDBREAKS DIRSTACK EPOCHREALTIME EPOCHSECONDS FUNCNAME GROUPS HISTCMD IFS
LINENO OLDPWD OPTERR PIPESTATUS PS1 PS2 PS4 PWD RANDOM SECONDS SHLVL SRANDOM _
"""
SHELL_OWN = READONLY | frozenset(_NAMES.split())
"""Names that bash sets itself, whatever the environment says: what a script passes on has its value, or nothing."""

LONGEST = 128 * 1024 - 1
"""Bytes of `NAME=value` that Linux passes to a program: MAX_ARG_STRLEN in execve(2)."""
MOST = 2 * 1024 * 1024 - LONGEST
"""Bytes of all of them together: a quarter of a stack of 8 MB, less what the image and the command line need."""

PROTECTED = frozenset({"PATH", "HOME", "USER", "SHELL", "PWD", "IFS"})
PROTECTED_PREFIXES = ("LD_", "PYTHON", "BASH_")


def build(
    variables: Variables, env: Mapping[str, str], extra: Mapping[str, str], reserved: Mapping[str, str]
) -> dict[str, str | None]:
    """Return what to set in the container of a job that has its runner; None means unset. Replaces the variables in
    `env`, the workflow's own. `extra` comes from `-e`; `reserved` has the values of the reserved names. Raises
    UsageError if `env` uses an undefined variable."""
    known = replacements(variables, reserved)
    given = {**{name: expand(text, known) for name, text in env.items()}, **extra}
    allowed = {name: value for name, value in given.items() if name not in SHELL_OWN | RESERVED}
    return {"PYTHONUNBUFFERED": "1", **_exported(variables), **allowed, **reserved}


def replacements(variables: Variables, reserved: Mapping[str, str]) -> Values:
    """Return what `$x` stands for: the variables, overridden by the reserved names."""
    return {**_free(variables), **reserved}


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


def check_sizes(values: Mapping[str, str | None]) -> None:
    """Raise UsageError if Linux would not start a program with this environment. The message begins with a name."""
    sizes = {
        name: len(f"{name}={value}".encode(errors="replace")) for name, value in values.items() if value is not None
    }
    for name, size in sizes.items():
        if size > LONGEST:
            what = f"{name} has {size:,} bytes in the environment"
            raise UsageError(f"{what}, and Linux passes at most {LONGEST:,} to a program", hint=SHORTEN)
    if sum(sizes.values()) > MOST:
        what = f"all variables together have {sum(sizes.values()):,} bytes"
        raise UsageError(f"{what}, and Linux passes at most {MOST:,} to a program", hint=SHORTEN)


def reserved_notes(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each variable whose name is reserved."""
    for name in names:
        if name in RESERVED:
            yield (
                f"variable '{name}' has a reserved name: ${name} is dstack's own value, and $config_args leaves the "
                "variable out; rename it"
            )


def variable_warnings(names: Iterable[str]) -> Iterator[str]:
    """Yield warnings about variables that don't arrive in the environment, one sentence each."""
    for name in names:
        upper = name.upper()
        if name in RESERVED:
            continue
        if upper in RESERVED:
            yield f"variable '{name}' does not set {upper} in the environment: the name is reserved"
        elif upper in SHELL_OWN - PROTECTED:
            yield f"variable '{name}' does not set {upper} in the environment: bash sets {upper} itself; rename it"
        elif not _settable(upper):
            yield (
                f"variable '{name}' does not set {upper} in the environment, as that would change how programs "
                "run; to set it anyway, use 'env'"
            )


def no_effect(name: str) -> str | None:
    """Why a name that is set with `env` or -e does not arrive, as the end of a sentence; None if it does."""
    if name in RESERVED:
        return "is reserved: dstack's own value replaces the one in 'env' or -e"
    return "does not arrive in the environment: bash sets it itself; use another name" if name in SHELL_OWN else None


def check_name(name: str) -> None:
    """Raise UsageError unless a secret may have this name."""
    if not IDENTIFIER.fullmatch(name):
        words = "is not a valid variable name; use letters, digits and '_', and don't start with a digit"
    elif name in SHELL_OWN:
        words = "can't be set because shells set it themselves"
    else:
        return
    raise UsageError(f"'{name}' {words}", hint="dstack secrets set WANDB_API_KEY")


def _free(variables: Variables) -> Values:
    return {name: value for name, value in variables.all.items() if name not in RESERVED}


def _exported(variables: Variables) -> Values:
    """Return what variables set in the environment: their upper-case names, and their names as written, which win."""
    plain = _free(variables)
    both = {**{name.upper(): value for name, value in plain.items()}, **plain}
    return {name: value for name, value in both.items() if _settable(name)}


def _settable(name: str) -> bool:
    """Whether a variable may set this name in the environment."""
    return not (name in SHELL_OWN | RESERVED | PROTECTED or name.startswith(PROTECTED_PREFIXES))
