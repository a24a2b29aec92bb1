"""Commands in running containers: over real SSH, with and without a terminal, and what is left when a side vanishes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import struct
import subprocess
import termios
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import project
from tests.environment.product import Home, program, servers
from tests.environment.waiting import until
from tests.unit.cli.terminal import looks, type_into

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


class Running:
    """A run whose job waits until its container has a file `/tmp/go`."""

    def __init__(self, home: Home, name: str, docker: list[str]) -> None:
        self.home, self.name, self.docker = home, name, docker

    def words(self, *command: str) -> list[str]:
        return [str(program()), "exec", self.name, *(["--", *command] if command else [])]

    def popen(self, *command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.words(*command), cwd=self.home.path, env=self.home.environment, stdin=pipe, stdout=pipe, stderr=pipe
        )

    def exec(self, *command: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
        with self.popen(*command) as process:
            out, err = process.communicate(data, timeout=120)
            return process.returncode, out, err

    def type(self, *steps: tuple[str, str | Callable[[], str]], command: tuple[str, ...] = ()) -> tuple[str, int]:
        known = {"cwd": self.home.path, "environment": self.home.environment}
        return type_into(self.words(*command), steps, **known)  # type: ignore[arg-type]

    def processes(self) -> str:
        """The command lines of all processes in the container."""
        script = "for p in /proc/[0-9]*; do cat $p/cmdline; echo; done"
        found = subprocess.run([*self.docker, "ps", "-q"], capture_output=True, text=True, check=True).stdout.split()
        texts = [
            subprocess.run([*self.docker, "exec", each, "sh", "-c", script], capture_output=True, check=False).stdout
            for each in found
        ]
        return b"\n".join(texts).replace(b"\0", b" ").decode()

    def gone(self, text: str) -> None:
        """Wait until no process in the container has this in its command line."""
        until(lambda: text not in self.processes(), f"nothing of {text!r} is left", 60)


def resize(command: str, rows: int, columns: int) -> str:
    """Change the size of the terminal of the command that has this in its command line. Types nothing."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if command.encode() in (process / "cmdline").read_bytes() and os.readlink(process / "fd/0") != "/dev/null":
                with open(os.readlink(process / "fd/0"), "rb") as terminal:
                    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                return ""
        except OSError:  # it has ended meanwhile
            continue
    raise AssertionError(f"{command!r} does not run")


WAITS = "while [ ! -e /tmp/go ]; do sleep 0.2; done; echo over"


@pytest.fixture
def running(
    cli: Cli, dstack_home: Home, runner: str, busybox: str, tmp_path: Path, docker: list[str]
) -> Iterator[Running]:
    folder = project(
        tmp_path / "p",
        textwrap.dedent(f"""
        workflows:
          - name: job
            image: {busybox}
            commands: ['{WAITS}']
            env: {{GREETING: "it's $who"}}
        """),
        "configs: {job: {who: you}}",
    )
    assert cli("run", "job", "--name", "looked-at", "-e", "TOKEN=hidden", "-d", cwd=folder).returncode == 0
    until(lambda: json.loads(cli("runs", "looked-at", "--json").stdout)["status"] == "running", "it runs", 120)
    yield Running(dstack_home, "looked-at", docker)
    cli("stop", "looked-at", "--abort", "-y")


def test_bytes_exit_codes_environment_and_events(cli: Cli, running: Running) -> None:
    # its exit code, its own stdout and stderr, and stdin's end
    assert running.exec("sh", "-c", "cat; echo problem >&2; exit 7", data=b"a\0b\r\n\xff") == (
        7,
        b"a\0b\r\n\xff",
        b"problem\n",
    )
    assert running.exec("no-such-program")[0] in (126, 127)
    # the job's folder and environment, without `-e`
    code, out, _ = running.exec("sh", "-c", 'pwd; echo "$GREETING $who $DSTACK_JOB_ID ${TOKEN-none}"; id -u')
    job = json.loads(cli("runs", "looked-at", "--json").stdout)["jobs"][0]["id"]
    assert (code, out.decode()) == (0, f"/workflow\nit's you you {job} none\n0\n")
    # 20 MB there and back, through one pipe
    data = os.urandom(1 << 20) * 20
    code, out, _ = running.exec("cat", data=data)
    assert (code, hashlib.sha256(out).hexdigest()) == (0, hashlib.sha256(data).hexdigest())
    # a reader that leaves early
    with running.popen("sh", "-c", "while :; do echo y; done") as process:
        assert process.stdout
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        process.wait(60)
    running.gone("echo y")
    # who looked in
    events = [json.loads(line) for line in cli("events", "looked-at", "--json").stdout.splitlines()]
    seen = events[0] if isinstance(events[0], list) else events
    kinds = [each["kind"] for each in seen if each["kind"].startswith("exec.")]
    assert kinds.count("exec.started") == 5
    until(lambda: cli("events", "looked-at").stdout.count("exec.ended") == 5, "every end is recorded", 60)


def test_a_terminal(running: Running) -> None:
    def press(key: str, meanwhile: str) -> Callable[[], str]:
        def pressed() -> str:
            until(lambda: meanwhile in running.processes(), f"{meanwhile} runs", 60)
            return key

        return pressed

    shown, code = running.type(
        ("/workflow #", "stty size; echo $TERM\n"),
        ("xterm-256color", "sleep 1000\n"),
        ("sleep 1000", press("\3", "sleep 1000 ")),
        ("#", "sleep 1001\n"),
        ("sleep 1001", press("\x1a", "sleep 1001 ")),
        ("Stopped", "kill -9 %1; while ! stty size | grep 100; do sleep 0.2; done\n"),
        ("done", lambda: resize("exec\0looked-at", 30, 100)),
        ("30 100", "vi /tmp/text\n"),
        ("- /tmp/text", "i"),
        ("I /tmp/text", "hello"),
        ("hello", "\x1b"),
        ("- /tmp/text", ":wq\n"),
        ("#", "cat /tmp/text; exit 3\n"),
    )
    assert code == 3
    assert "24 80" in shown
    assert "hello" in looks(shown, 100, 30)
    running.gone("sleep 1000")


def test_a_job_that_does_not_run(cli: Cli, running: Running) -> None:
    assert running.exec("touch", "/tmp/go")[0] == 0
    assert cli("wait", "looked-at").returncode == 0

    code, out, err = running.exec("ls")

    assert (code, out) == (125, b"")
    assert err.decode() == (
        "dstack: error: job of looked-at is not running: it is done\n"
        "hint: to see what it printed: dstack logs looked-at\n"
    )
    assert cli("exec", "nothing").returncode == 2


@pytest.mark.parametrize("ending", ["client", "server"])
def test_what_is_cut_off_is_ended(running: Running, ending: str) -> None:
    process = running.popen("sh", "-c", "echo begun; sleep 12345; echo never")
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"begun\n"

    if ending == "client":
        process.kill()
    else:
        for server in servers(running.home.dstack):
            os.kill(server, signal.SIGKILL)
        assert process.wait(60) == 125
        assert b"the connection to the server broke" in process.stderr.read()

    running.gone("sleep 12345")
    process.wait(60)
    process.stdout.close()
    process.stderr.close()
    assert process.stdin
    process.stdin.close()


def test_the_terminal_is_put_back_when_the_server_dies(running: Running) -> None:
    def die() -> str:
        for server in servers(running.home.dstack):
            os.kill(server, signal.SIGKILL)
        return ""

    words = " ".join(running.words())
    known = {"cwd": running.home.path, "environment": running.home.environment}
    script = f"stty -a > before; {words}; echo code $?; stty -a > after; cmp before after && echo same"
    shown, _ = type_into(["/bin/sh", "-c", script], [("/workflow #", die), ("same", "")], **known)  # type: ignore[arg-type]

    assert "code 125" in shown
