from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dstack.errors import UsageError
from dstack.model.project.environment import (
    LONGEST,
    MOST,
    RESERVED,
    SHELL_OWN,
    build,
    check_name,
    check_sizes,
    no_effect,
    reserved_notes,
    reserved_values,
    variable_warnings,
)
from dstack.model.project.workflow import Values, Variables

KNOWN = reserved_values(
    run="brave-otter-7", job="0a1b", workflow="train", config_args="--x 1", runner="box", gpus=[0, 2], attempt=2
)


def environment(own: Values, env: dict[str, str] | None = None, extra: dict[str, str] | None = None) -> Values:
    return build(Variables(own=own), env or {}, extra or {}, KNOWN)


def test_the_reserved_names_are_complete() -> None:
    assert set(KNOWN) == RESERVED
    assert KNOWN["DSTACK_GPUS"] == "0,2"
    assert KNOWN["DSTACK_ATTEMPT"] == "2"


def test_a_variable_has_its_name_and_its_upper_case_name() -> None:
    values = environment({"model": "124M", "Batch_size": "2", "TAG": "x"})
    assert [values[name] for name in ("model", "MODEL", "Batch_size", "BATCH_SIZE", "TAG")] == [
        "124M", "124M", "2", "2", "x",
    ]  # fmt: skip


def test_null_is_unset_under_both_names() -> None:
    values = environment({"model": None})
    assert values["model"] is None
    assert values["MODEL"] is None


def test_an_own_variable_wins_over_a_global_one() -> None:
    built = build(Variables(shared={"a": "1", "b": "1"}, own={"a": "2"}), {}, {}, {})
    assert (built["a"], built["A"], built["b"]) == ("2", "2", "1")


def test_the_order_of_strength() -> None:
    assert environment({})["PYTHONUNBUFFERED"] == "1"
    assert environment({}, {"PYTHONUNBUFFERED": "0"})["PYTHONUNBUFFERED"] == "0"
    assert environment({"a": "1"}, {"A": "2"})["A"] == "2"
    assert environment({"a": "1"}, {"A": "2"})["a"] == "1"
    assert environment({"a": "1"}, {"a": "2"}, {"a": "3"})["a"] == "3"
    assert environment({}, {"job_id": "2", "DSTACK_RUNNER": "2"}, {"DSTACK_JOB_ID": "3"}) == {
        "PYTHONUNBUFFERED": "1",
        **KNOWN,
    }


def test_env_has_its_variables_replaced_reserved_ones_first() -> None:
    env = {"A": "$model/$job_id", "B": "$DSTACK_GPUS", "C": "$run_name", "D": "$$x"}
    values = environment({"model": "124M", "run_name": "run1"}, env)
    assert [values[name] for name in "ABCD"] == ["124M/0a1b", "0,2", "brave-otter-7", "$x"]
    with pytest.raises(UsageError, match="undefined variable"):
        environment({}, {"A": "$zzz"})


def test_what_e_gives_is_taken_as_it_is() -> None:
    assert environment({}, {}, {"A": "$zzz"})["A"] == "$zzz"


@pytest.mark.parametrize(
    "name",
    [
        "path",
        "home",
        "user",
        "shell",
        "pwd",
        "ifs",
        "ld_preload",
        "pythonpath",
        "python_x",
        "bash_env",
        "Path",
        "uid",
        "ppid",
    ],
)
def test_protected_names_are_left_alone_and_a_warning_says_so(name: str) -> None:
    built = build(Variables(own={name: "x"}), {}, {}, {})
    (warning,) = variable_warnings([name])

    assert built == {"PYTHONUNBUFFERED": "1", name: "x"}
    assert warning.startswith(f"variable '{name}' does not set {name.upper()} in the environment")


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH", "UID", "EUID", "SHELLOPTS"])
def test_a_variable_that_is_called_like_a_protected_name_stays_out(name: str) -> None:
    built = build(Variables(own={name: "x"}), {}, {}, {})
    assert built == {"PYTHONUNBUFFERED": "1"}
    assert len(list(variable_warnings([name]))) == 1


def test_env_may_set_protected_names_but_not_those_that_shells_forbid() -> None:
    built = build(Variables(), {"PATH": "/bin"}, {"HOME": "/h", "UID": "1"}, {})
    assert built == {"PYTHONUNBUFFERED": "1", "PATH": "/bin", "HOME": "/h"}


@pytest.mark.parametrize("name", ["run_name", "job_id", "config_args", "DSTACK_GPUS"])
def test_a_variable_that_shadows_a_reserved_name_is_left_out_wholly(name: str) -> None:
    built = build(Variables(own={name: "mine"}), {}, {}, KNOWN)
    assert built == {"PYTHONUNBUFFERED": "1", **KNOWN}
    assert len(list(reserved_notes([name]))) == 1
    assert list(variable_warnings([name])) == []


def test_a_variable_whose_upper_case_name_is_reserved() -> None:
    built = build(Variables(own={"dstack_gpus": "9"}), {}, {}, KNOWN)
    assert built["dstack_gpus"] == "9"
    assert built["DSTACK_GPUS"] == "0,2"
    assert len(list(variable_warnings(["dstack_gpus"]))) == 1


@pytest.mark.parametrize("name", ["GROUPS", "RANDOM", "FUNCNAME", "SECONDS", "HISTCMD", "_"])
def test_names_that_bash_owns_are_left_out_and_a_warning_says_so(name: str) -> None:
    built = build(Variables(own={name: "1"}), {name: "2"}, {name: "3"}, {})

    assert built == {"PYTHONUNBUFFERED": "1"}
    (warning,) = variable_warnings([name])
    assert warning == f"variable '{name}' does not set {name} in the environment: bash sets {name} itself; rename it"
    assert no_effect(name) == "does not arrive in the environment: bash sets it itself; use another name"
    assert no_effect("PATH") is None
    assert len(list(variable_warnings([name.lower()]))) == 1


KNOWN_TO_BASH = """
BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND BASH_COMPAT BASH_ENV BASH_LINENO
BASH_LOADABLES_PATH BASH_REMATCH BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO BASH_VERSION BASH_XTRACEFD CHILD_MAX COLUMNS
COMPREPLY COMP_CWORD COMP_KEY COMP_LINE COMP_POINT COMP_TYPE COMP_WORDBREAKS COMP_WORDS COPROC DIRSTACK EMACS ENV
EPOCHREALTIME EPOCHSECONDS EUID EXECIGNORE FCEDIT FIGNORE FUNCNAME FUNCNEST GLOBIGNORE GROUPS HISTCMD HISTCONTROL
HISTFILE HISTFILESIZE HISTIGNORE HISTSIZE HISTTIMEFORMAT HOSTFILE HOSTNAME HOSTTYPE IFS IGNOREEOF INPUTRC INSIDE_EMACS
LANG LINENO LINES MACHTYPE MAIL MAILCHECK MAILPATH MAPFILE OLDPWD OPTARG OPTERR OPTIND OSTYPE PIPESTATUS
POSIXLY_CORRECT PPID PROMPT_COMMAND PROMPT_DIRTRIM PS0 PS1 PS2 PS3 PS4 PWD RANDOM READLINE_LINE READLINE_POINT REPLY
SECONDS SHELL SHELLOPTS SHLVL SRANDOM TIMEFORMAT TMOUT TMPDIR UID _ auto_resume histchars
"""
"""The variables in bash(1)."""


def test_bash_passes_on_every_other_name_that_it_knows(tmp_path: Path) -> None:
    """As a job gets them: exported by bash --posix, which then becomes the bash that runs the script."""
    given = {**dict.fromkeys(KNOWN_TO_BASH.split(), "/tmp"), "BASH_COMPAT": "5.1", "BASH_XTRACEFD": "2"}
    values = build(Variables(), given, {}, {})
    (tmp_path / "env").write_text("".join(f"export {name}='{value}'\n" for name, value in values.items()))
    (tmp_path / "script").write_text("exec env\n")
    begin = f". {tmp_path}/env; exec bash -e {tmp_path}/script"

    done = subprocess.run(["bash", "--posix", "-c", begin], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert set(done.stdout.splitlines()) >= {f"{name}={value}" for name, value in values.items()}
    assert set(KNOWN_TO_BASH.split()) - values.keys() <= SHELL_OWN


def test_an_environment_that_no_program_could_get() -> None:
    most = LONGEST - len("A=")
    check_sizes({"A": "x" * most, "B": None})
    with pytest.raises(UsageError, match=r"A has 131,072 bytes in the environment, and Linux passes at most 131,071"):
        check_sizes({"A": "x" * (most + 1)})
    with pytest.raises(UsageError, match="A has 131,074 bytes"):
        check_sizes({"A": "ü" * (LONGEST // 2) + "x" * 2})
    with pytest.raises(UsageError, match=f"all variables together have .* bytes, and Linux passes at most {MOST:,}"):
        check_sizes({f"A{n}": "x" * 100_000 for n in range(20)})
    said = subprocess.run(["/bin/true"], env={"A": "x" * most, "PATH": "/bin"}, check=False).returncode
    assert said == 0
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run(["/bin/true"], env={"A": "x" * (most + 1)}, check=False)


def test_names_that_e_may_set() -> None:
    check_name("A_1")
    for name in ("", "1A", "A-B", "A B", "A\n", "UID", "é", "RANDOM"):
        with pytest.raises(UsageError):
            check_name(name)


@pytest.mark.parametrize("shell", ["sh", "bash", "bash --posix"])
def test_a_shell_can_export_every_name_that_comes_out(shell: str) -> None:
    risky = ["UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "OPTIND", "LINENO", "GROUPS", "RANDOM"]
    values = build(Variables(own={name.lower(): "x" for name in risky}), {}, {}, {})
    script = "".join(f"export {name}='{value}'\n" for name, value in values.items()) + "echo done"
    said = subprocess.run([*shell.split(), "-e"], input=script, capture_output=True, text=True, check=False)
    assert (said.stdout, said.stderr) == ("done\n", "")
