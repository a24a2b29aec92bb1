"""A command that fails with `--json` says so as one line of JSON on stderr."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dstack.cli.output import failure
from dstack.errors import ProjectError, UsageError
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import State, job_view, run_view


def error_of(cli: Cli, *arguments: str, **options: Any) -> dict[str, Any]:
    done = cli(*arguments, **options)
    document = json.loads(done.stderr)
    assert done.stdout == b""
    assert done.returncode == document["error"]["exit_code"]
    assert document.keys() == {"error"}
    return dict(document["error"])


def test_a_run_that_does_not_exist(cli: Cli) -> None:
    assert error_of(cli, "runs", "nope", "--json") == {
        "code": "not-found",
        "message": "no run or job 'nope'",
        "hint": "`dstack runs` lists the runs",
        "exit_code": 2,
    }


def test_a_prefix_of_several_runs(cli: Cli, state: State) -> None:
    for name in ("brave-otter-7", "brave-bear-1"):
        state.hold(run_view(name, [job_view(f"{len(name)}", "train", name)]))

    assert error_of(cli, "logs", "brave", "--json")["code"] == "ambiguous-name"


def test_a_command_line_that_is_wrong(cli: Cli) -> None:
    error = error_of(cli, "jobs", "--json", "--wrong")

    assert (error["code"], error["exit_code"], error["hint"]) == ("usage", 2, "dstack jobs --help")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("jobs --json -n x", "invalid value for '-n': 'x' is not a whole number"),
        ("jobs --json -n 99999999999", "invalid value for '-n': 99999999999 is not in the range 1<=x<=1000000000"),
        ("jobs --jsom --json", "no such option '--jsom'; did you mean '--json'?"),
        (
            "runners add --json a\tb",
            "'a\tb' is not a valid host; write [user@]host[:port] or an alias from ~/.ssh/config",
        ),
    ],
)
def test_a_wrong_word_is_named_as_everywhere(cli: Cli, words: str, message: str) -> None:
    assert error_of(cli, *words.split(" "))["message"] == message


@pytest.mark.parametrize("words", ["run --json nope", "run train --json --quite"])
def test_a_run_that_can_not_be_submitted(cli: Cli, words: str) -> None:
    assert error_of(cli, *words.split())["code"] == "usage"


def test_a_project_with_errors_names_each_on_a_line_of_the_message(cli: Cli, project: Any) -> None:
    (project / ".dstack" / "workflows.yaml").write_text("workflows:\n  - {name: a, imagine: b}\n")

    error = error_of(cli, "run", "a", "--json")

    assert error["code"] == "invalid-project"
    assert ".dstack/workflows.yaml:2: unknown key 'imagine'" in error["message"]
    assert all(line.startswith(".dstack/") for line in error["message"].splitlines())


def test_a_server_that_is_out_of_reach(cli: Cli) -> None:
    error = error_of(cli, "runs", "--json", environment={"DSTACK_SERVER_URL": "/nowhere"})

    assert (error["code"], error["exit_code"]) == ("server-unreachable", 75)


def test_a_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    monkeypatch.setenv("DSTACK_HOME", str(tmp_path))

    code = failure.report(ZeroDivisionError("oh"), as_json=True)

    error = json.loads(capsys.readouterr().err)["error"]
    assert (code, error["exit_code"], error["code"]) == (125, 125, "internal")
    assert error["message"] == "unexpected ZeroDivisionError: oh"
    (crash,) = (tmp_path / "crashes").iterdir()
    assert "ZeroDivisionError: oh" in crash.read_text()
    assert str(crash) in error["hint"]


def test_a_report_has_no_values_of_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("DSTACK_HOME", str(tmp_path))
    words = [
        "run",
        "secret0",
        "-e",
        "KEY=secret1",
        "-eKEY=secret2",
        "--token=secret3",
        "--token",
        "-secret4",
        "--lr",
        "5",
    ]
    monkeypatch.setattr(failure.sys, "argv", ["/bin/dstack", *words])

    failure.report(ZeroDivisionError("oh"))

    (report,) = (tmp_path / "crashes").iterdir()
    assert "/bin/dstack run ... -e ... ... --token --token ... --lr ..." in report.read_text()
    assert "secret" not in report.read_text()


def test_what_a_message_quotes_is_shortened_in_its_middle(capsys: pytest.CaptureFixture[str]) -> None:
    failure.report(UsageError(f"'{'x' * 10**6}' is not a run; list them: dstack runs", hint="y" * 10**6))

    message, hint = capsys.readouterr().err.splitlines()
    assert message.startswith("dstack: error: 'xxx")
    assert message.endswith("x' is not a run; list them: dstack runs")
    assert max(len(message), len(hint)) < 6000


def test_many_problems_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    failure.report(ProjectError([f"hosts:{number}: {'x' * 10**4}" for number in range(3000)], what="the inventory"))

    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["and 2,800 more", "dstack: error: the inventory has 3000 errors"]
    assert sum(map(len, lines)) < 60_000


def test_what_reorders_a_line_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    failure.report(UsageError("a\u202eb\u2066c\u2028d\x1be\x9bf"))

    assert capsys.readouterr().err == "dstack: error: a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf\n"


def test_without_json_it_is_said_in_words(cli: Cli) -> None:
    assert cli("runs", "nope").stderr.startswith(b"dstack: error: no run or job 'nope'\nhint: ")


def test_what_follows_two_dashes_is_not_an_option(cli: Cli) -> None:
    assert cli("runs", "nope", "--", "--json").stderr.startswith(b"dstack: error: ")
