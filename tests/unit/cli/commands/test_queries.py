"""Commands that only query the server."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dstack.cli.commands.runners.import_inventory import difference
from dstack.cli.output import again
from dstack.inventory.runners import Machines
from dstack.model.api.jobs import StopRequest
from dstack.model.api.runners import AddRunner
from dstack.model.api.server import Problem
from dstack.model.job.status import Status
from dstack.model.runner.metrics import GpuUse, Use
from dstack.model.runner.runner import Address
from tests.unit.cli.conftest import Cli, command
from tests.unit.cli.fake_server import State, job_view, run_view, runner_view


def test_lists_are_bare_arrays_and_single_things_objects(cli: Cli, state: State) -> None:
    state.runners["lab1"] = runner_view("lab1")

    assert json.loads(cli("runs", "--json").stdout)[0]["name"] == "brave-otter-7"
    assert json.loads(cli("runs", "brave", "--json").stdout)["jobs"][0]["id"] == "0123456789ab"
    assert json.loads(cli("jobs", "--json").stdout)[0]["cache"] == {"hit": False, "why": "no earlier run of it"}
    assert json.loads(cli("runners", "--json").stdout)[0]["gpus"][1]["name"] == "A100"
    assert json.loads(cli("artifacts", "list", "brave", "--json").stdout) == []
    status = json.loads(cli("server", "status", "--json").stdout)
    assert {"pid", "url", "version", "started_at", "runs"} <= status.keys()


def test_tables_are_aligned(cli: Cli, state: State) -> None:
    state.hold(run_view("a-b-1", [job_view("ffffffffffff", "x", run="a-b-1")], status=Status.RUNNING, finished_at=None))
    state.runners.update(lab1=runner_view("lab1"), lab2=runner_view("lab2", state="unusable", reason="no Docker"))

    runs = cli("runs").stdout.decode().splitlines()
    runners = cli("runners")

    head = ["NAME", "WORKFLOW", "STATUS", "USER", "SUBMITTED", "TOOK", "EXIT", "RUNNER", "TAG", "REASON"]
    assert runs[0].split() == head
    assert runs[1].index("train") == runs[0].index("WORKFLOW") == runs[2].index("x ")
    assert runs[1].split()[-3:] == ["0", "lab1", ":best"]
    assert max(map(len, runners.stdout.decode().splitlines())) <= 80
    assert b"lab2: unusable: no Docker" in runners.stderr


def test_a_run_in_full(cli: Cli, state: State) -> None:
    shown = cli("runs", "brave-otter-7").stdout.decode()

    assert "variables  model=124M\n           seed=null" in shown
    assert "c0ffeec0ffee on main with changes, https://example.org/r" in shown
    assert "cache: no earlier run of it" in shown


def test_a_run_in_full_tells_its_reason_once(cli: Cli, state: State) -> None:
    failed = {"status": Status.FAILED, "exit_code": 125}
    jobs = [job_view("aaaaaaaaaaaa", "prep", reason="no such image", **failed), job_view("bbbbbbbbbbbb", "train")]
    state.hold(run_view("brave-otter-7", jobs, reason="prep: no such image", **failed))

    shown = cli("runs", "brave").stdout.decode()

    assert shown.count("no such image") == 1
    assert "\nprep: failed with exit code 125\n" in shown


def test_prune_names_the_machines_that_it_could_not_ask(cli: Cli, state: State) -> None:
    state.runners.update(lab1=runner_view("lab1"), lab2=runner_view("lab2", state="unreachable", reason="no route"))

    done = cli("prune", "--caches")

    assert done.returncode == 0
    assert b"runner 'lab2' is unreachable; its unused data is kept until the next `dstack prune`" in done.stderr
    assert b"lab1" not in done.stderr


def test_unknown_names(cli: Cli) -> None:
    for words in (
        ("runs", "x"),
        ("logs", "x"),
        ("wait", "x"),
        ("artifacts", "download", "x"),
        ("runners", "check", "x"),
    ):
        done = cli(*words)

        assert (done.returncode, done.stdout) == (2, b""), words
        assert done.stderr.startswith(b"dstack: error: ")


def test_an_inventory_without_hosts(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "hosts.ini"
    empty.touch()

    done = cli("runners", "import", str(empty))

    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == f"{empty} names no host; nothing was changed\n"


def test_an_import_skips_the_hosts_that_it_can_not_use(cli: Cli, folder: Path) -> None:
    inventory = folder / "inventory"
    inventory.mkdir()
    (inventory / "1").write_text("[lab]\na ansible_user={{me}}\nb\n")
    (inventory / "2").write_text("c ansible_ssh_common_args='-o ForwardX11=no'\n")

    done = cli("runners", "import", str(inventory), "--dry-run")
    as_json = cli("runners", "import", str(inventory), "--dry-run", "--json")

    assert done.returncode == as_json.returncode == 125
    assert done.stdout == b"b: add b, labels lab\nc: add c\n"
    assert done.stderr.decode().splitlines() == [
        "a: skipped: ansible_user is the template '{{me}}', which dstack can't expand; write the value itself",
        "  hint: to leave a host out, set dstack_skip: true for it",
    ]
    assert [(row["name"], row["do"], "reason" in row) for row in json.loads(as_json.stdout)] == [
        ("b", "add", False), ("c", "add", False), ("a", "skip", True),
    ]  # fmt: skip


def test_an_import_of_hosts_that_can_all_not_be_used_changes_nothing(cli: Cli, folder: Path) -> None:
    (folder / "hosts").write_text("a ansible_connection=winrm\n")

    done = cli("runners", "import", str(folder / "hosts"))

    assert done.returncode == 2
    assert done.stderr.decode().startswith(
        f"dstack: error: no host in {folder}/hosts can be used; nothing was changed\na: "
    )
    assert b"the project" not in done.stderr


def test_logs_of_a_job_byte_for_byte(cli: Cli, state: State) -> None:
    state.logs["0123456789ab"] = bytes(range(256)) * 3

    assert cli("logs", "0123").stdout == bytes(range(256)) * 3
    assert cli("logs", "brave-otter-7").stdout == bytes(range(256)) * 3


def test_logs_choose_lines(cli: Cli) -> None:
    assert cli("logs", "brave", "--tail", "1").stdout == b"three"
    assert cli("logs", "brave", "--tail", "2", "-f").stdout == b"two\r\nthree"
    assert cli("logs", "brave", "--tail", "0").stdout == b""
    assert cli("logs", "brave", "--grep", "^t.*e").stdout == b"three"
    assert cli("logs", "brave", "--timestamps").stdout.startswith(b"2026-01-31T12:00:00.000Z one\n")
    assert cli("logs", "brave", "--since", "2026-02-01T00:00:00Z").stdout == b""
    assert cli("logs", "brave", "--since", "2026-01-31T13:00:00+01:00").stdout == b"one\ntwo\r\nthree"
    assert cli("logs", "brave", "--since", "yesterday").returncode == 2
    assert cli("logs", "brave", "--grep", "(").returncode == 2


def test_a_jobs_id_stands_for_it_or_for_its_run(cli: Cli, state: State) -> None:
    jobs = [job_view("aaaaaaaaaaaa", "prepare"), job_view("cccccccccccc", "train")]
    state.hold(run_view("brave-otter-7", jobs), {})

    assert [job["id"] for job in json.loads(cli("jobs", "ccc", "--json").stdout)] == ["cccccccccccc"]
    assert json.loads(cli("runs", "ccc", "--json").stdout)["name"] == "brave-otter-7"
    assert cli("wait", "ccc").returncode == 0
    for query in ("jobs", "runs", "wait"):
        assert cli(query, "nosuch").stderr.startswith(b"dstack: error: no run or job 'nosuch'")


def test_logs_of_several_jobs(cli: Cli, state: State) -> None:
    jobs = [job_view("aaaaaaaaaaaa", "prepare", cached=True, cached_from="b" * 12), job_view("cccccccccccc", "train")]
    state.hold(run_view("brave-otter-7", jobs), {"aaaaaaaaaaaa": b"1\n", "cccccccccccc": b"2"})

    assert cli("logs", "brave").stdout == b"prepare | 1\ntrain | 2\n"
    assert cli("logs", "cccc").stdout == b"2"


TWO_RUNS = {
    "aaaaaaaaaaaa": b"1\n",
    "bbbbbbbbbbbb": b"2\n",
    "cccccccccccc": b"3\n",
}


@pytest.fixture
def two_runs(state: State) -> None:
    """Two runs: one with two jobs, one with a job."""
    first = [job_view("aaaaaaaaaaaa", "prepare"), job_view("bbbbbbbbbbbb", "train")]
    state.hold(run_view("brave-otter-7", first), TWO_RUNS)
    state.hold(run_view("calm-ant-1", [job_view("cccccccccccc", "train", run="calm-ant-1")]))


@pytest.mark.usefixtures("two_runs")
@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("brave", "prepare | 1,train | 2"),
        ("brave train", "2"),
        ("brave prepare train", "prepare | 1,train | 2"),
        ("brave bbbb", "prepare | 1,train | 2"),
        ("bbbb brave", "prepare | 1,train | 2"),
        ("aaaa cccc", "brave-otter-7/prepare | 1,calm-ant-1/train | 3"),
        ("brave calm", "brave-otter-7/prepare | 1,brave-otter-7/train | 2,calm-ant-1/train | 3"),
        ("brave calm train", "brave-otter-7/prepare | 1,brave-otter-7/train | 2,calm-ant-1/train | 3"),
        ("calm brave train", "calm-ant-1/train | 3,brave-otter-7/train | 2"),
        ("brave calm --tail 1", "brave-otter-7/prepare | 1,brave-otter-7/train | 2,calm-ant-1/train | 3"),
        ("brave train --grep 9", ""),
    ],
)
def test_logs_of_runs_jobs_and_workflows(cli: Cli, words: str, printed: str) -> None:
    done = cli("logs", *words.split())
    followed = cli("logs", "-f", *words.split())

    assert (done.returncode, done.stdout.decode().splitlines()) == (0, printed.split(",") if printed else [])
    assert (done.stderr, followed.stderr) == (b"", b"")
    assert sorted(followed.stdout.splitlines()) == sorted(done.stdout.splitlines())


@pytest.mark.usefixtures("two_runs")
def test_logs_of_several_runs_are_followed_through_a_broken_connection(cli: Cli, state: State) -> None:
    state.logs = {job: b"".join(b"%d\n" % number for number in range(2000)) for job in state.logs}
    state.cuts = [3000, 500, 4000, 100]

    lines = cli("logs", "-f", "brave", "calm").stdout.decode().splitlines()

    for label in ("brave-otter-7/prepare", "brave-otter-7/train", "calm-ant-1/train"):
        assert [line for line in lines if line.startswith(label)] == [f"{label} | {number}" for number in range(2000)]


@pytest.mark.usefixtures("two_runs")
def test_logs_of_several_runs_as_json_end_with_their_runs(cli: Cli) -> None:
    events = [json.loads(line) for line in cli("logs", "-f", "brave", "calm", "--json").stdout.splitlines()]
    array = json.loads(cli("logs", "aaaa", "calm", "--json").stdout)

    assert {event["name"] for event in events if event["event"] == "run"} == {"brave-otter-7", "calm-ant-1"}
    assert events[-1]["event"] == "run"
    assert [event["data"] for event in array] == ["1\n", "3\n"]


@pytest.mark.usefixtures("two_runs")
def test_logs_of_an_unknown_workflow_name_those_of_the_run(cli: Cli) -> None:
    done = cli("logs", "brave", "trian")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [
        "dstack: error: 'trian' is not a workflow of brave-otter-7, nor a run or job; did you mean 'train'?",
        "hint: dstack logs brave-otter-7 train",
    ]
    assert b"missing argument" in cli("logs").stderr


def test_an_empty_log_is_explained(cli: Cli, state: State) -> None:
    failed = {"status": Status.FAILED, "exit_code": 125, "reason": "pulling busybox:9 failed", "started_at": None}
    state.hold(run_view("brave-otter-7", [job_view("0123456789ab", "train", **failed)]))
    state.logs.clear()

    for words in (("logs", "brave"), ("logs", "-f", "0123")):
        done = cli(*words)
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr == b"train: no output: failed with exit code 125: pulling busybox:9 failed\n"
    assert cli("logs", "brave", "--json").stdout == b"[]\n"


def test_logs_as_json(cli: Cli) -> None:
    array = json.loads(cli("logs", "brave", "--json").stdout)
    lines = [json.loads(line) for line in cli("logs", "-f", "0123456789ab", "--json").stdout.splitlines()]

    assert "".join(event["data"] for event in array) == "one\ntwo\r\nthree"
    assert "".join(event["data"] for event in lines if event["event"] == "log") == "one\ntwo\r\nthree"
    assert (lines[-1]["event"], lines[-1]["name"]) == ("run", "brave-otter-7")


def test_logs_follow_just_ends(state: State, server: str, environment: dict[str, str]) -> None:
    state.held.clear()
    process = subprocess.Popen(
        command("logs", "-f", "brave"),
        env={**environment, "DSTACK_SERVER_URL": server},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(14) == b"one\ntwo\r\nthree"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""

    assert process.returncode == 130


def test_wait_prints_no_log_and_asks_for_none(cli: Cli, state: State) -> None:
    done = cli("wait", "brave")
    events = [json.loads(line) for line in cli("wait", "brave", "--json").stdout.splitlines()]

    assert (done.returncode, done.stdout) == (0, b"")
    assert b"brave-otter-7: done" in done.stderr
    assert {event["event"] for event in events} == {"job", "run"}
    assert events[-1]["exit_code"] == 0


def test_stop(cli: Cli, state: State) -> None:
    running = run_view("brave-otter-7", [job_view("0123456789ab", "train")], status=Status.RUNNING)
    state.hold(running)

    done = cli("stop", "brave-otter-7", "0123")
    cli("stop", "--all", "--abort", "-y")

    assert done.stderr == b"brave-otter-7: stopping\n"
    assert state.stops == [
        StopRequest(refs=("brave-otter-7", "0123")),
        StopRequest(everything=True, abort=True),
    ]
    assert cli("stop").returncode == 2
    assert cli("stop", "x", "--all").returncode == 2


def test_add_a_runner(cli: Cli, state: State) -> None:
    done = cli("runners", "add", "ada@lab1:2222", "--label", "a", "--label", "b", "--docker", "sudo docker")
    cli("runners", "add", "local", "--gpus", "0")

    assert done.returncode == 0
    assert b"state      ready" in done.stdout
    assert state.added[0].address == Address(host="lab1", user="ada", port=2222)
    assert (state.added[0].labels, state.added[0].docker) == (("a", "b"), "sudo docker")
    assert state.added[1].address.local


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("lab", Address(host="lab")),
        ("[::1]:2200", Address(host="::1", port=2200)),
        ("::1", Address(host="::1")),
        ("u@10.0.0.1", Address(host="10.0.0.1", user="u")),
        ("u@corp@lab", Address(host="lab", user="u@corp")),
    ],
)
def test_hosts(cli: Cli, state: State, text: str, address: Address) -> None:
    assert cli("runners", "add", text).returncode == 0
    assert state.added[0].address == address


@pytest.mark.parametrize(
    "words",
    ["a@@", "-x@lab", "lab:x", "lab:0", "lab:70000", "lab:22 --port 23", "local --user x", "u@lab --user v", "lab/x y"],
)
def test_no_hosts(cli: Cli, state: State, words: str) -> None:
    assert cli("runners", "add", *words.split()).returncode == 2
    assert state.added == []


def test_an_unknown_host_key_needs_somebody_to_vouch(cli: Cli, state: State) -> None:
    state.problems["POST /runners"] = [
        Problem(kind="host-key", message="nobody knows the key of lab1", exit_code=125, fingerprint="SHA256:abc")
    ]

    done = cli("runners", "add", "lab1")

    assert done.returncode == 125
    assert b"--fingerprint SHA256:abc" in done.stderr
    assert state.added == []


def test_the_hint_is_the_whole_command_as_it_was_typed(cli: Cli, state: State) -> None:
    state.problems["POST /runners"] = [
        Problem(kind="host-key", message="m", hint="if so, add --fingerprint SHA256:abc", exit_code=125)
    ]

    done = cli("runners", "add", "u@h", "--name", "n 1", "--identity", "k", "--label=a")

    assert done.stderr.splitlines()[-1].decode() == (
        "hint: if so: dstack runners add u@h --name 'n 1' --identity k --label=a --fingerprint SHA256:abc"
    )


@pytest.mark.parametrize(
    ("hint", "typed", "shown"),
    [
        ("add --local to run it", "run train --lr 1", "dstack run train --lr 1 --local to run it"),
        ("dstack x, or add --local to", "run a", "dstack x, or dstack run a --local to"),
        ("or, add --name OTHER; x", "runners add h --name n", "or: dstack runners add h --name OTHER; x"),
        ("add --name OTHER", "runners add --name=n h", "dstack runners add h --name OTHER"),
        ("add --server http://HOST:PORT", "runs", "dstack runs --server http://HOST:PORT"),
        (
            "add it with --docker 'sudo -n docker', which works; or sudo x",
            "runners add h --docker docker --name n",
            "dstack runners add h --name n --docker 'sudo -n docker', which works; or sudo x",
        ),
        ("add it with --docker podman", "runners check h", "add it with --docker podman"),
        ("please add a label", "runs", "please add a label"),
    ],
)
def test_hints_repeat_what_was_typed(hint: str, typed: str, shown: str) -> None:
    assert again.whole(hint, typed.split()) == shown


def test_check_without_a_name_checks_all(cli: Cli, state: State) -> None:
    state.runners.update(lab1=runner_view("lab1"), lab2=runner_view("lab2", state="unreachable", reason="no route"))

    every, one = cli("runners", "check"), cli("runners", "check", "lab1")

    assert (every.returncode, one.returncode) == (125, 0)
    assert b"lab1" in every.stdout
    assert b"lab2: unreachable: no route" in every.stderr
    assert [each["name"] for each in json.loads(cli("runners", "check", "--json").stdout)] == ["lab1", "lab2"]
    assert json.loads(cli("runners", "check", "lab1", "--json").stdout)["name"] == "lab1"
    state.runners.clear()
    assert cli("runners", "check").returncode == 0


def test_runners_that_are_one_machine_are_named_once(cli: Cli, state: State) -> None:
    for name, others in {"a": ["b", "c"], "b": ["a", "c"], "c": ["a", "b"], "d": []}.items():
        state.runners[name] = runner_view(name, same_machine=others)

    done = cli("runners")

    assert done.stderr == b"a, b and c are one machine: they share its CPUs, memory and GPUs\n"


def wanted(name: str, host: str, **changes: Any) -> AddRunner:
    return AddRunner(name=name, address=Address(host=host), source="/f", **changes)


def test_a_new_name_at_the_same_address_is_a_rename() -> None:
    known = [runner_view(name, definition=wanted(name, name)) for name in ("one", "two", "three")]
    new = [wanted("one", "one"), wanted("2", "two"), wanted("3", "elsewhere"), wanted("4", "three", root="/x")]

    steps = difference(Machines(new, {}), known, "/f")

    assert [(step.do, step.name, step.old) for step in steps] == [
        ("keep", "one", ""),
        ("rename", "2", "two"),
        ("add", "3", ""),
        ("add", "4", ""),
        ("remove", "three", ""),
    ]
    assert steps[1].differences == ("name: two -> 2",)
    assert {step.wanted.replaces for step in steps[1:4]} == {("two", "three")}


def test_check_and_remove_a_runner(cli: Cli, state: State) -> None:
    state.runners["lab1"] = runner_view("lab1", state="unusable", reason="no Docker", fix="apt-get install docker.io")

    checked = cli("runners", "check", "lab1")

    assert checked.returncode == 125
    assert b"hint: apt-get install docker.io" in checked.stderr
    assert cli("runners", "remove", "lab1").stderr == b"lab1: removed; nothing is left on the machine\n"


def test_config_is_saved_for_its_owner_alone(cli: Cli, folder: Path, server: str) -> None:
    unset = {"DSTACK_SERVER_URL": ""}

    cli("config", "--url", server, "--token", "t", environment=unset)
    shown = json.loads(cli("config", "--json", environment=unset).stdout)

    assert shown == {
        "home": str(folder / "home"),
        "url": server,
        "token": False,
        "tls_ca": None,
        "storage": "/srv/artifacts",
        "endpoint_url": None,
        "max_gpus_per_user": None,
        "notify": None,
    }
    assert stat.S_IMODE((folder / "home" / "config.json").stat().st_mode) == 0o600
    assert cli("config", "--storage", "/data").stdout.endswith(b"storage  /data\n")
    assert cli("config", "--url", "ftp://x").returncode == 2
    assert cli("config", "--endpoint-url", "x").returncode == 2


def test_a_server_of_another_version(cli: Cli, state: State) -> None:
    state.version = "9.9"
    done = cli("runs", "brave")
    state.api = 99
    refused = cli("runs")

    assert done.returncode == 0
    assert done.stderr.count(b"9.9") >= 1
    assert done.stderr.count(b"\n") == 1
    assert refused.returncode == 125
    assert b"can't talk to each other" in refused.stderr
    assert cli("server", "status").returncode == 0


def test_no_server_at_the_configured_address(cli: Cli, folder: Path) -> None:
    for url in ("http://127.0.0.1:9", str(folder / "nobody")):
        done = cli("runs", environment={"DSTACK_SERVER_URL": url})

        assert done.returncode == 75
        assert b"can't reach the server" in done.stderr


def test_init_then_validate(cli: Cli, folder: Path) -> None:
    new = folder / "new"
    new.mkdir()

    made = cli("init", cwd=new)

    assert made.returncode == 0
    assert b".dstack/workflows.yaml\n" in made.stdout
    assert cli("validate", cwd=new).stdout.startswith(b"valid: 3 workflows")
    again = cli("init", cwd=new)
    assert again.returncode == 2
    assert b"nothing was changed" in again.stderr


def test_closed_streams(cli: Cli, server: str, environment: dict[str, str]) -> None:
    words = " ".join(command("runs"))
    for redirection in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{words} {redirection}"],
            env={**environment, "DSTACK_SERVER_URL": server},
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_completion(cli: Cli, project: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert b"_DSTACK_COMPLETE" in cli("completion", shell).stdout

    words = {"_DSTACK_COMPLETE": "bash_complete", "COMP_WORDS": "dstack run tr", "COMP_CWORD": "2"}
    assert cli(environment=words).stdout == b"plain,train\n"
    words = {"_DSTACK_COMPLETE": "bash_complete", "COMP_WORDS": "dstack run train --ba", "COMP_CWORD": "3"}
    assert cli(environment=words).stdout == b"plain,--batch_size\n"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("logs br", ["brave-otter-7"]),
        ("runs ", ["delete", "brave-otter-7"]),
        ("runs delete br", ["brave-otter-7"]),
        ("runs delete --j", ["--json"]),
        ("runs br --m", ["--mine", "--metrics"]),
        ("tag br", ["brave-otter-7"]),
        ("tag brave-otter-7 b", ["best"]),
        ("tag --delete b", ["best"]),
        ("run --from br", ["brave-otter-7"]),
        ("runs --workflow ", ["train"]),
        ("stop --workflow tr", ["train"]),
        ("secrets delete ", ["WANDB_API_KEY"]),
        ("logs brave-otter-7 br", ["brave-otter-7"]),
    ],
)
def test_completion_of_what_the_server_knows(cli: Cli, words: str, completed: list[str]) -> None:
    asked = {"COMP_WORDS": f"dstack {words}", "COMP_CWORD": str(words.count(" ") + 1)}

    done = cli(environment={"_DSTACK_COMPLETE": "bash_complete", **asked})

    assert done.stdout.decode().split() == [f"plain,{word}" for word in completed]


def test_delete_runs(cli: Cli, state: State) -> None:
    # when
    done = cli("runs", "delete", "brave", "calm", "--json")

    # then
    assert [each["run"] for each in json.loads(done.stdout)] == state.deleted == ["brave", "calm"]
    assert b"--yes" in cli("runs", "delete", "--help").stdout
    assert b"missing argument 'RUN...'" in cli("runs", "delete").stderr


def test_a_run_with_the_name_of_a_command_can_be_shown(cli: Cli, state: State) -> None:
    # given
    state.hold(run_view("delete", [job_view("ffffffffffff", "x", run="delete")]))

    # when
    shown = cli("runs", "--json", "--", "delete")
    refused = cli("runs", "--json", "delete", "brave")

    # then
    assert json.loads(shown.stdout)["name"] == "delete"
    assert (refused.returncode, state.deleted) == (2, [])
    assert json.loads(refused.stderr)["error"]["message"] == "write 'delete' first, and its options after it"


def test_tags(cli: Cli) -> None:
    assert cli("tag").stdout.decode().splitlines()[1].split()[:3] == [":best", "brave-otter-7", "train"]
    assert json.loads(cli("tag", "--json").stdout)[0]["name"] == "best"
    assert cli("tag", "brave").stderr.startswith(b"dstack: error: the tag's name is missing\n")
    assert cli("tag", "brave", "--delete", "best").returncode == 2


def test_runners_live_end_with_ctrl_c(state: State, server: str, environment: dict[str, str]) -> None:
    use = Use(cpu=35.4, memory_used=12 * 1024**3, gpus=(GpuUse(index=0, percent=90, others=("blender (7)",)),))
    state.runners["lab1"] = runner_view("lab1", use=use, gpus_free=1)
    words = command("runners", "-w")
    process = subprocess.Popen(
        words,
        env={**environment, "DSTACK_SERVER_URL": server},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()

    assert process.returncode == 0
    assert [line.split()[:1] for line in lines] == [[], ["NAME"], ["lab1"], [], ["NAME"], ["lab1"]]
    assert "16 35%  12/64 GB  1/2 A100" in lines[2]
    assert "lab1: GPU 0 is also used by blender (7)" in said


def test_runners_live_are_a_line_each_time_for_a_program(
    state: State, server: str, environment: dict[str, str]
) -> None:
    state.runners["lab1"] = runner_view("lab1")
    known = {**environment, "DSTACK_SERVER_URL": server}
    with subprocess.Popen(command("runners", "-w", "--json"), env=known, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)

    assert process.returncode == 0
    assert [[each["name"] for each in json.loads(line)] for line in lines] == [["lab1"], ["lab1"]]


@pytest.mark.parametrize("words", [("runs", "-w"), ("runs", "-w", "--workflow", "train", "-n", "3")])
def test_runs_live_end_with_ctrl_c(
    state: State, server: str, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    known = {**environment, "DSTACK_SERVER_URL": server}
    process = subprocess.Popen(command(*words), env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()

    assert (process.returncode, said) == (0, "")
    assert [line.split()[:1] for line in lines] == [[], ["NAME"], ["brave-otter-7"]] * 2


def test_a_run_is_watched_until_it_ends(cli: Cli) -> None:
    shown = cli("runs", "brave", "-w")
    parsed = json.loads(cli("runs", "-w", "brave", "--json").stdout)

    assert shown.stdout.decode().splitlines()[1].split() == ["run", "brave-otter-7"]
    assert (shown.returncode, parsed["name"]) == (0, "brave-otter-7")
    assert b"-w can't be used with --diff or --metrics" in cli("runs", "brave", "-w", "--diff").stderr
