"""`dstack run` against a fake server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.model.api.jobs import CacheView
from dstack.model.api.server import Problem
from dstack.model.job.status import Status
from tests.unit.cli.conftest import Cli, command
from tests.unit.cli.fake_server import ENDED, State, job_view, run_view


def test_follows_one_job_raw_and_says_the_rest_on_stderr(cli: Cli, state: State) -> None:
    done = cli("run", "train")

    assert done.stdout == b"one\ntwo\r\nthree"
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "brave-otter-7: train"
    assert "train: running on lab1" in lines
    assert lines[-2:] == ["brave-otter-7: done in 1m 12s", "next: dstack logs brave-otter-7"]
    assert done.returncode == 0


def test_several_jobs_are_prefixed_and_cached_ones_only_named(cli: Cli, state: State) -> None:
    why = CacheView(True, "nothing changed since calm-ant-1")
    cached = job_view("aaaaaaaaaaaa", "prepare", cached=True, cached_from="cccccccccccc", cache=why)
    state.hold(
        run_view("brave-otter-7", [cached, job_view("bbbbbbbbbbbb", "train")]),
        {"aaaaaaaaaaaa": b"old\n", "bbbbbbbbbbbb": b"new\nlast"},
    )

    done = cli("run", "train")

    assert done.stdout == b"train | new\ntrain | last\n"
    assert b"prepare: cached: nothing changed since calm-ant-1\n" in done.stderr


def test_exits_like_the_job_and_says_why(cli: Cli, state: State) -> None:
    job = job_view("0123456789ab", "train", status=Status.FAILED, exit_code=17)
    state.hold(run_view("brave-otter-7", [job], status=Status.FAILED, exit_code=17, reason="train: it broke"))

    done = cli("run", "train")

    assert done.returncode == 17
    assert b"brave-otter-7: failed after 1m 12s, exit code 17: train: it broke\n" in done.stderr
    assert b"next: dstack logs brave-otter-7" in done.stderr


@pytest.mark.parametrize(("status", "code"), [(Status.STOPPED, 143), (Status.LOST, 125)])
def test_exit_codes_of_ends_without_one(cli: Cli, state: State, status: Status, code: int) -> None:
    job = job_view("0123456789ab", "train", status=status, exit_code=None)
    state.hold(run_view("brave-otter-7", [job], status=status, exit_code=None))

    assert cli("run", "train").returncode == code
    assert cli("wait", "brave").returncode == code


def test_a_broken_stream_loses_and_doubles_nothing(cli: Cli, state: State) -> None:
    state.logs["0123456789ab"] = bytes(range(256)) * 20
    state.cuts = [700, 1234, 3000, 900]

    done = cli("run", "train")

    assert done.stdout == bytes(range(256)) * 20
    assert state.requests.count("GET /follow/brave-otter-7") == 5
    assert done.returncode == 0


def test_sends_definitions_variables_and_environment(cli: Cli, state: State, project: Path) -> None:
    (project / "sub").mkdir()

    done = cli(
        *("run", "--runner", "lab1", "train", "--batch-size", "-4", "--name", "mine", "--model", "774M", "--gpus", "2"),
        *("-e", "A=1", "-e", "B", "--no-cache"),
        cwd=project / "sub",
        environment={"B": "two"},
    )

    assert done.returncode == 0, done.stderr
    submission, pack = state.submissions[0]
    assert [workflow.name for workflow in submission.workflows] == ["prepare", "train"]
    assert submission.variables["train"].own["batch_size"] == "-4"
    assert submission.variables["train"].own["name"] == "mine"
    assert submission.variables["train"].own["learning_rate"] == "0.00002"
    assert submission.variables["prepare"].shared["model"] == "774M"
    assert (submission.runner, submission.gpus, submission.name) == ("lab1", 2, None)
    assert submission.environment == {"A": "1", "B": "two"}
    assert submission.no_cache
    assert not submission.snapshot.git
    assert pack.startswith(b"PACK")


def test_sends_the_full_pack_when_the_base_is_missing(cli: Cli, state: State, project: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "first")
    state.problems["POST /runs"] = [Problem(kind="missing-base", message="no such commit")]

    done = cli("run", "train")

    assert done.returncode == 0, done.stderr
    assert state.requests.count("POST /runs") == 2
    assert len(state.submissions) == 1


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, env={**os.environ, "HOME": str(folder)})


def test_detach_prints_the_name(cli: Cli, state: State) -> None:
    done = cli("run", "-d", "train")

    assert done.stdout == b"brave-otter-7\n"
    assert b"dstack logs -f brave-otter-7" in done.stderr
    assert "GET /follow/brave-otter-7" not in state.requests


def test_quiet_prints_the_name_alone(cli: Cli, state: State) -> None:
    for words in (("run", "-q", "train"), ("run", "train", "-dq")):
        done = cli(*words)

        assert (done.stdout, done.stderr, done.returncode) == (b"brave-otter-7\n", b"", 0)


def test_json_is_an_object_a_line_and_the_run_at_the_end(cli: Cli, state: State) -> None:
    state.logs["0123456789ab"] = "añ€😀".encode() + b"\xff" + b"x" * 9

    done = cli("run", "train", "--json")

    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["run", "run"]
    assert events[-1]["name"] == "brave-otter-7"
    assert events[-1]["status"] == "done"
    assert events[-1]["jobs"][0]["finished_at"] == ENDED
    assert {event["status"] for event in events if event["event"] == "job"} == {"running", "done"}
    logs = [event for event in events if event["event"] == "log"]
    assert "".join(event.get("data", "?") for event in logs).startswith("añ")
    assert any("data_base64" in event for event in logs)
    assert done.stderr == b""


def test_dry_run_submits_nothing(cli: Cli, state: State) -> None:
    shown = cli("run", "--dry-run", "train")
    parsed = json.loads(cli("run", "--dry-run", "--json", "train").stdout)

    assert state.submissions[0][0].dry_run
    assert b"it is the one you named" in shown.stdout
    assert b"1.2 kB  modified  train.py" in shown.stdout
    assert parsed["jobs"][0]["runner"] == "lab1"


def test_the_servers_refusal_is_shown(cli: Cli, state: State) -> None:
    state.problems["POST /runs"] = [
        Problem(
            kind="UsageError", message="no runner is known", hint="dstack runners add HOST, or --local", exit_code=2
        )
    ]

    done = cli("run", "train")

    assert done.returncode == 2
    assert done.stderr == b"dstack: error: no runner is known\nhint: dstack runners add HOST, or --local\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run", "no workflow given"),
        ("run trian", "did you mean 'train'?"),
        ("run train --batchsize 2", "did you mean 'batch_size'?"),
        ("run train --priority 101", "101 is not in the range"),
        ("run --timeout soon train", "--timeout: 'soon' is not a duration; write 30s, 10m, 1h30m or 2d"),
        ("run --local --runner x train", "--local and --runner can't be used together"),
        ("run --gpus -1 train", "-1 is not in the range"),
        ("run -e A-B=1 train", "'A-B' is not a valid variable name"),
        ("run -e NOPE train", "NOPE is not set in your environment"),
        ("runs --diff", "--diff needs the name of one run"),
        ("run --max-snapshot much train", "--max-snapshot: 'much' is not a size"),
        ("run --max-snapshot 1.5.5 train", "--max-snapshot: '1.5.5' is not a size"),
        ("prune --older-than 30", "--older-than: '30' has no unit; write a unit, such as 30d or 30h"),
        ("run --max-snapshot 500 train", "--max-snapshot: '500' has no unit; write a unit, such as 500MB"),
        ("jobs x y", "unexpected extra argument"),
        ("runners drian x", "unknown command 'drian'; did you mean 'drain'?"),
    ],
)
def test_usage_errors_end_with_2(cli: Cli, state: State, words: str, said: str) -> None:
    done = cli(*words.split())

    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert done.stderr.startswith(b"dstack: error: ")
    assert state.submissions == []


def test_a_reserved_name_is_told_once_by_validate(cli: Cli, project: Path) -> None:
    (project / ".dstack" / "configs.yaml").write_text("configs:\n  train: {run_name: mine, lr: 1}\n")

    assert cli("validate", cwd=project).stderr.count(b"has a reserved name") == 1
    for words in (["train"], ["train", "--help"], ["--help"]):
        done = cli("run", *words, cwd=project)
        assert (done.returncode, b"reserved" in done.stderr, b"run_name" in done.stdout) == (0, False, False)


def test_a_warning_of_the_project_is_printed_once(cli: Cli, project: Path) -> None:
    (project / ".dstack" / "configs.yaml").write_text("configs:\n  train: {groups: 8}\n")

    for words in (["run", "train"], ["run", "train", "--help"], ["run", "--help"], ["validate"]):
        assert cli(*words, cwd=project).stderr.count(b"does not set GROUPS") == 1


def test_what_has_no_effect_is_said(cli: Cli, state: State, project: Path) -> None:
    (project / ".dstack" / "configs.yaml").write_text("configs:\n  train: {run_name: mine}\n")

    done = cli("run", "train", "--run-name", "x", "-e", "DSTACK_GPUS=7", "-e", "RANDOM=1", "-e", "A=1", cwd=project)

    assert done.returncode == 0
    assert [line for line in done.stderr.decode().splitlines() if "warning" in line] == [
        "dstack: warning: --run-name has no effect: the name is reserved for dstack's own value",
        "dstack: warning: 'DSTACK_GPUS' is reserved: dstack's own value replaces the one in 'env' or -e",
        "dstack: warning: 'RANDOM' does not arrive in the environment: bash sets it itself; use another name",
    ]
    assert len(state.submissions) == 1


def test_a_value_that_was_forgotten_is_asked_for(cli: Cli, state: State) -> None:
    done = cli("run", "train", "--batch_size")

    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "dstack: error: --batch_size needs a value, because its default is 1",
        "hint: dstack run train --batch_size VALUE; a value that begins with '-' is written --batch_size=VALUE",
    ]
    assert state.submissions == []


def test_a_variable_called_help_does_not_hide_the_help(cli: Cli, state: State, project: Path) -> None:
    (project / ".dstack" / "configs.yaml").write_text("configs:\n  train: {help: me}\n")

    assert b"--help=VALUE [HELP]" in cli("run", "train", "--help", cwd=project).stdout
    assert state.submissions == []
    assert cli("run", "train", "--help=you", cwd=project).returncode == 0
    assert state.submissions[0][0].variables["train"].own["help"] == "you"


def test_errors_of_the_project_are_listed_by_line(cli: Cli, project: Path) -> None:
    (project / ".dstack" / "workflows.yaml").write_text("workflows:\n  - name: a\n    imag: x\n    commands: [b]\n")

    done = cli("run", "a")

    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith(".dstack/workflows.yaml:")
    assert lines[-1] == "dstack: error: the project has 3 errors; nothing was submitted"
    assert done.returncode == 2


@pytest.mark.parametrize("words", ["validate", "run a --dry-run", "run a --help"])
def test_what_submits_nothing_does_not_say_so(cli: Cli, project: Path, words: str) -> None:
    (project / ".dstack" / "workflows.yaml").write_text("workflows:\n  - name: a\n    imag: x\n    commands: [b]\n")

    done = cli(*words.split())

    assert done.stderr.decode().splitlines()[-1] == "dstack: error: the project has 3 errors"
    assert done.returncode == 2


def test_help_shows_no_commands_to_the_terminal(cli: Cli, project: Path) -> None:
    workflows = 'workflows:\n  - {name: a, image: x, commands: [b], help: "\\e]0;title\\a red"}\n'
    (project / ".dstack" / "workflows.yaml").write_text(workflows)
    (project / ".dstack" / "configs.yaml").write_text('configs:\n  a: {lr: "\\e[2J\\u202e1"}\n')

    for words in (["run", "--help"], ["run", "a", "--help"]):
        shown = cli(*words).stdout
        assert shown
        assert b"\x1b" not in shown
        assert "\u202e".encode() not in shown


def test_both_spellings_of_the_configs_at_once(cli: Cli, project: Path) -> None:
    (project / ".dstack" / "config.yml").write_text("configs: {}\n")

    done = cli("validate")

    assert done.returncode == 2
    assert b"both .dstack/configs.yaml and .dstack/config.yml exist" in done.stderr


def test_validate_fills_images_in_and_a_run_may_choose_another_value(cli: Cli, project: Path) -> None:
    workflows, configs = (project / ".dstack" / f"{name}.yaml" for name in ("workflows", "configs"))
    workflows.write_text("workflows:\n- name: train\n  image: lab/$what:$tag\n  commands: [c]\n")
    configs.write_text("configs:\n  train: {what: Py, tag: 1}\n")

    refused = cli("validate")

    assert refused.returncode == 2
    assert b".dstack/workflows.yaml:3: 'image' in workflow 'train' is 'lab/Py:1', which can't be" in refused.stderr
    assert cli("run", "train", "--what", "py").returncode == 0
    configs.write_text("configs:\n  train: {what: py, tag: null}\n")
    assert cli("validate").returncode == 0


def test_outside_a_project(cli: Cli, folder: Path) -> None:
    done = cli("run", "train", cwd=folder)

    assert done.returncode == 2
    assert b"no .dstack/workflows.yaml" in done.stderr
    assert b"dstack init" in done.stderr


def test_help_lists_workflows_and_variables(cli: Cli) -> None:
    workflows = cli("run", "--help").stdout.decode()
    variables = cli("run", "train", "--help").stdout.decode()

    assert "  train    Fine-tune the model" in workflows
    assert "  prepare  Make the data" in workflows
    assert "--batch_size [BATCH_SIZE]" in variables
    assert "default: 0.00002" in variables
    assert "  default: 1\n" in variables
    assert "default: null" in variables


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_detaches(
    state: State, server: str, project: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    state.held.clear()
    process = subprocess.Popen(
        command("run", "train"),
        cwd=project,
        env={**environment, "DSTACK_SERVER_URL": server},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(14) == b"one\ntwo\r\nthree"
        process.send_signal(number)
        said = process.stderr.read().decode()

    assert process.returncode == 130
    assert "brave-otter-7 keeps running" in said
    assert "dstack logs -f brave-otter-7" in said
    assert state.stops == []


def test_a_reader_that_leaves_is_no_error(cli: Cli, state: State, server: str, environment: dict[str, str]) -> None:
    state.logs["0123456789ab"] = b"line\n" * 100_000
    state.chunk = 5000
    shell = " ".join([*command("logs", "brave"), "| head -n 1"])

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        env={**environment, "DSTACK_SERVER_URL": server},
        capture_output=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr, done.returncode) == (b"line\n", b"", 0)


@pytest.fixture
def repository(project: Path) -> Path:
    """The project in a larger repository, with a change, and with an untracked file that looks like a secret."""
    root = project.parent
    (root / ".gitignore").write_text("/*\n!/project\n!/private\n!/.gitignore\n!/.dstackignore\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-C", root, "-c", "user.name=T", "-c", "user.email=t@t", *words], check=True)
    (project / "train.py").write_text("edited\n")
    (root / "private").mkdir()
    (root / "private" / ".env").write_text("TOKEN=1\n")
    return root


def test_what_is_sent_beyond_the_commit_is_said_and_secrets_are_warned_of(cli: Cli, repository: Path) -> None:
    project = repository / "project"

    said = cli("run", "train", cwd=project).stderr.decode().splitlines()

    assert "sent 1 changed, 1 untracked: ../private/.env" in said
    warnings = [line for line in said if "secret" in line]
    hint = "printf '%s\\n' /private/.env >> ../.dstackignore"
    words = "../private/.env may hold a secret and is sent to the runner; to leave it out: "
    assert warnings == [f"dstack: warning: {words}{hint}"]

    subprocess.run(["sh", "-c", hint], cwd=project, check=True)
    said = cli("run", "train", cwd=project).stderr.decode().splitlines()
    assert "sent 1 changed, 1 untracked: ../.dstackignore" in said
    assert not [line for line in said if "secret" in line]


def test_a_refused_run_says_nothing_of_what_was_not_accepted(cli: Cli, state: State, repository: Path) -> None:
    state.problems["POST /runs"] = [Problem(kind="UsageError", message="no runner is known", exit_code=2)]

    refused = cli("run", "train", cwd=repository / "project")

    assert (refused.returncode, refused.stderr) == (2, b"dstack: error: no runner is known\n")


def test_many_files_are_counted_and_warned_of_once(cli: Cli, repository: Path) -> None:
    for number in range(4):
        (repository / "private" / f"id-{number}.pem").write_text("key\n")

    said = cli("run", "train", "-d", cwd=repository / "project").stderr.decode()

    names = "../private/.env, ../private/id-0.pem, ../private/id-1.pem and 2 more"
    assert f"sent 1 changed, 5 untracked: {names}\n" in said
    assert said.count("secret") == 1
    assert f"{names} may hold secrets and are sent to the runner; to leave them out: add them to" in said


def test_a_file_name_can_not_make_a_line_of_its_own(cli: Cli, repository: Path) -> None:
    (repository / "private" / ".env").rename(repository / "private" / "a\ndstack: error: \r.env")

    said = cli("run", "train", "-d", cwd=repository / "project").stderr.decode().splitlines()

    assert "sent 1 changed, 1 untracked: ../private/a\ufffddstack: error: \ufffd.env" in said
    assert not any(line.startswith("dstack: error") for line in said)


def test_scripts_are_told_nothing_of_it(cli: Cli, repository: Path) -> None:
    assert b"sent 1" not in cli("run", "train", "-q", cwd=repository / "project").stderr
    assert cli("run", "train", "-d", "--json", cwd=repository / "project").stderr == b""


def test_a_clean_tree_says_nothing(cli: Cli, repository: Path) -> None:
    subprocess.run(["git", "-C", repository, "checkout", "-q", "."], check=True)
    (repository / "private" / ".env").unlink()

    assert b"sending" not in cli("run", "train", cwd=repository / "project").stderr


def test_an_artifact_behind_a_link_is_refused_before_anything_is_sent(cli: Cli, state: State, repository: Path) -> None:
    project = repository / "project"
    (project / "ckpt").symlink_to("/mnt/large")
    workflows = project / ".dstack" / "workflows.yaml"
    workflows.write_text(f"{workflows.read_text()}    artifacts: [ckpt/$name]\n")

    done, checked = cli("run", "train", cwd=project), cli("validate", cwd=project)

    for answer in (done, checked):
        assert answer.returncode == 2
        assert b"train: the artifact 'ckpt/run1' lies behind 'ckpt', which is a link in the project" in answer.stderr
    assert state.submissions == []
    (repository / ".gitignore").write_text("ckpt\n")
    assert cli("run", "train", cwd=project).returncode == 0


def test_an_include_that_matches_nothing_is_warned_of(cli: Cli, project: Path) -> None:
    workflows = project / ".dstack" / "workflows.yaml"
    include = "workflows: [prepare]\n      repo: {include: [tain.py, train.py, conf/]}"
    workflows.write_text(workflows.read_text().replace("workflows: [prepare]", include))

    checked = cli("validate", cwd=project)

    assert checked.returncode == 0
    assert checked.stderr.decode().splitlines() == [
        "dstack: warning: train: include 'tain.py' matches no file; did you mean 'train.py'?",
        "dstack: warning: train: include 'conf/' matches no file",
    ]


def test_the_servers_warnings_are_shown(cli: Cli, state: State) -> None:
    state.runs["brave-otter-7"] = replace(state.runs["brave-otter-7"], warnings=["train: include 'x' matches no file"])

    assert b"dstack: warning: train: include 'x' matches no file\n" in cli("run", "train", "-d").stderr
