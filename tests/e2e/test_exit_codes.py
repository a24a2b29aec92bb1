"""Exit codes, as scripts rely on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.e2e.project import project, single
from tests.environment.product import Home, program
from tests.environment.sshd import Sshd, free_port
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def status(cli: Cli, name: str) -> str:
    shown = cli("runs", name, "--json")
    return str(json.loads(shown.stdout)["status"]) if shown.returncode == 0 else ""


def logged(cli: Cli, name: str, text: str) -> None:
    until(lambda: text in cli("logs", name).stdout, f"{text!r} is in the log of {name}")


def test_0_all_jobs_done(cli: Cli, runner: str, busybox: str, tmp_path: Path) -> None:
    done = cli("run", "job", cwd=single(tmp_path / "p", busybox, "echo hello"))

    assert (done.returncode, done.stdout) == (0, "hello\n")


def test_17_is_the_containers_own(cli: Cli, runner: str, busybox: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", busybox, "exit 17")

    done = cli("run", "job", "--name", "seventeen", cwd=folder)

    assert done.returncode == 17
    assert cli("wait", "seventeen").returncode == 17
    assert json.loads(cli("runs", "seventeen", "--json").stdout)["exit_code"] == 17


def test_the_failed_dependency_decides(cli: Cli, runner: str, busybox: str, tmp_path: Path) -> None:
    folder = project(
        tmp_path / "p",
        f"""
        workflows:
          - {{name: first, image: {busybox}, commands: [exit 9]}}
          - {{name: second, image: {busybox}, commands: [echo never], depends-on: {{workflows: [first]}}}}
        """,
    )

    done = cli("run", "second", "--name", "both", cwd=folder)

    assert done.returncode == 9
    assert "never" not in done.stdout
    run = json.loads(cli("runs", "both", "--json").stdout)
    assert [(job["workflow"], job["status"]) for job in run["jobs"]] == [("first", "failed"), ("second", "stopped")]


def test_1_an_artifact_was_not_produced(cli: Cli, runner: str, busybox: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", busybox, "echo kept > made", more="artifacts: [made, promised]")

    done = cli("run", "job", "--name", "short", cwd=folder)

    assert done.returncode == 1
    assert "artifact 'promised' was not produced" in done.stderr
    listed = json.loads(cli("artifacts", "list", "short", "--json").stdout)
    assert [entry["path"] for entry in listed] == ["made"]


def test_2_nothing_was_submitted(cli: Cli, runner: str, busybox: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", busybox, "true")
    (folder / ".dstack/workflows.yaml").write_text("workflows:\n  - name: job\n    image: x\n    comands: [a]\n")

    done = cli("run", "job", cwd=folder)

    assert done.returncode == 2
    assert ".dstack/workflows.yaml:4: unknown key 'comands' in workflow 'job'; did you mean 'commands'?" in done.stderr
    assert json.loads(cli("runs", "--json").stdout) == []


def test_2_no_runner_is_known(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "job", cwd=single(tmp_path / "p", "busybox", "true"))

    assert done.returncode == 2
    assert "dstack runners add HOST" in done.stderr
    assert "--local" in done.stderr


def test_2_more_gpus_than_there_are(cli: Cli, runner: str, busybox: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", busybox, "true", more="resources: {gpu: 64}")

    done = cli("run", "job", cwd=folder)

    assert done.returncode == 2
    assert "64 GPUs" in done.stderr


def test_75_the_server_is_out_of_reach(cli: Cli, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", "busybox", "true")

    done = cli("run", "job", cwd=folder, env={"DSTACK_SERVER_URL": f"http://127.0.0.1:{free_port()}"})

    assert done.returncode == 75
    assert "can't reach the server" in done.stderr


def test_125_the_image_is_missing(cli: Cli, runner: str, tmp_path: Path) -> None:
    done = cli("run", "job", cwd=single(tmp_path / "p", "localhost:1/no/such:image", "true"))

    assert done.returncode == 125
    assert "localhost:1/no/such:image" in done.stderr


def test_125_ssh_refuses_the_key(cli: Cli, runner: str, sshd: Sshd, busybox: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", busybox, "true")
    keys = sshd.folder / "authorized_keys"
    before = keys.read_text()
    keys.write_text("")
    try:
        assert cli("server", "stop").returncode == 0
        done = cli("run", "job", cwd=folder)
    finally:
        keys.write_text(before)

    assert done.returncode == 125
    assert "box" in done.stderr


def test_125_nobody_listens(cli: Cli, tmp_path: Path) -> None:
    done = cli("runners", "add", f"someone@127.0.0.1:{free_port()}", "--fingerprint", "SHA256:x")

    assert done.returncode == 125
    assert "refused" in done.stderr


def test_130_ctrl_c_detaches_and_the_run_goes_on(
    cli: Cli, dstack_home: Home, runner: str, busybox: str, tmp_path: Path
) -> None:
    folder = single(tmp_path / "p", busybox, "echo begun; while [ ! -e go ]; do sleep 0.1; done; echo ended")
    following = dstack_home.popen("run", "job", "--name", "long", cwd=folder)
    logged(cli, "long", "begun")

    os.kill(following.pid, signal.SIGINT)
    _, said = following.communicate(timeout=60)

    assert following.returncode == 130
    assert b"dstack logs -f long" in said
    assert status(cli, "long") == "running"
    assert cli("stop", "long", "-y").returncode == 0
    assert cli("wait", "long").returncode == 143


def test_143_stop_reaches_python_inside_the_shell(
    cli: Cli, dstack_home: Home, runner: str, python_image: str, tmp_path: Path
) -> None:
    program = """
        import signal, sys, time
        def last_words(*_):
            print("saving", flush=True)
            open("checkpoint", "w").write("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, last_words)
        print("training", flush=True)
        while True:
            time.sleep(0.05)
    """
    folder = single(tmp_path / "p", python_image, "python3 train.py", "echo next", more="artifacts: [checkpoint]")
    (folder / "train.py").write_text("\n".join(line[8:] for line in program.splitlines()))
    following = dstack_home.popen("run", "job", "--name", "trained", cwd=folder)
    logged(cli, "trained", "training")

    assert cli("stop", "trained", "-y").returncode == 0
    out, _ = following.communicate(timeout=60)

    assert following.returncode == 143
    assert out == b"training\nsaving\n"
    assert status(cli, "trained") == "stopped"
    listed = json.loads(cli("artifacts", "list", "trained", "--json").stdout)
    assert [entry["path"] for entry in listed] == ["checkpoint"]


def test_143_abort_keeps_nothing(cli: Cli, dstack_home: Home, runner: str, busybox: str, tmp_path: Path) -> None:
    folder = single(
        tmp_path / "p", busybox, "echo x > made; echo begun; while :; do sleep 1; done", more="artifacts: [made]"
    )
    following = dstack_home.popen("run", "job", "--name", "gone", cwd=folder)
    logged(cli, "gone", "begun")

    assert cli("stop", "gone", "--abort", "-y").returncode == 0
    following.communicate(timeout=60)

    assert following.returncode == 143
    assert json.loads(cli("artifacts", "list", "gone", "--json").stdout) == []


def test_everything_works_from_cron(dstack_home: Home, docker: list[str], busybox: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", busybox, "echo hello")
    kept = {name: value for name, value in dstack_home.environment.items() if name in ("DSTACK_HOME", "DOCKER_HOST")}

    done = subprocess.run(
        [program(), "run", "--local", "job"],
        cwd=folder,
        env=kept,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
