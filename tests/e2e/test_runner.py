"""`dstack-runner` with a team's server: registration, approval, heartbeats, and what it leaves."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack import runner
from tests.conftest import Cli
from tests.e2e.project import single
from tests.environment import account, needs
from tests.environment.product import Home
from tests.environment.sshd import Sshd, free_port
from tests.environment.waiting import until

TOKEN = "the-servers-token"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dsr-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def person(folder: Path, docker: list[str]) -> Iterator[account.Account]:
    made = account.create(f"dstack-r-{os.getpid()}", folder / "home", account.docker_group())
    try:
        yield made
    finally:
        account.remove(made)


@pytest.fixture(scope="module")
def sshd(folder: Path, person: account.Account) -> Iterator[Sshd]:
    """An sshd that only accepts the keys in the user's home."""
    server = Sshd(folder / "sshd", person.name)
    server.first = ("AuthorizedKeysFile .ssh/authorized_keys",)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def url(cli: Cli) -> str:
    port = free_port()
    done = cli("server", "start", "--port", str(port), env={"DSTACK_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    return f"http://127.0.0.1:{port}"


def everybodys_python() -> str:
    """A Python that the machine's user may run: the one of the tests may be in root's home."""
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin")
    if found is None:
        needs.missing("no python3 in /usr/bin; install it: apt-get install python3")
    return found


Offer = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def offer(url: str, person: account.Account, sshd: Sshd, docker: list[str]) -> Iterator[Offer]:
    """Run `curl -fsS SERVER/dstack-runner | DSTACK_TOKEN=T python3 -` as the machine's user."""
    started = []

    def offer(*options: str, token: str = TOKEN) -> subprocess.Popen[str]:
        known = ("--port", str(sshd.port), "--host-key", str(sshd.folder / "host_key.pub"), "--interval", "0.3")
        program = subprocess.run(["curl", "-fsS", f"{url}/dstack-runner"], capture_output=True, check=True).stdout
        source = Path(tempfile.mkstemp(dir=sshd.folder)[1])
        source.write_bytes(program)
        with source.open() as stdin:
            process = subprocess.Popen(
                [everybodys_python(), "-", "--name", "offered", *known, *options],
                stdin=stdin,
                stderr=subprocess.PIPE,
                text=True,
                env={"PATH": os.environ["PATH"], "HOME": str(person.home), "DSTACK_TOKEN": token},
                cwd=person.home,
                user=person.uid,
                group=person.home.stat().st_gid,
                extra_groups=[account.docker_group()],
            )
        started.append(process)
        return process

    yield offer
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def said(process: subprocess.Popen[str], words: str) -> str:
    """Read until the runner prints this."""
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError(f"it never said {words!r}: {lines}")


def shown(cli: Cli) -> dict[str, Any]:
    runners = json.loads(cli("runners", "--json").stdout)
    return dict(runners[0]) if runners else {}


def status(cli: Cli, run: str) -> str:
    return str(json.loads(cli("runs", run, "--json").stdout)["status"])


def home_of(person: account.Account) -> list[str]:
    return sorted(str(path) for path in person.home.rglob("*"))


def test_a_machine_that_offers_itself(
    offer: Offer, cli: Cli, person: account.Account, url: str, tmp_path: Path, busybox: str
) -> None:
    before = home_of(person)
    runner = offer("--label", "desk", "--cleanup")
    said(runner, "waiting for approval: dstack runners approve offered")
    assert shown(cli) == {}
    waiting = cli("runners", "approve").stdout
    assert "offered" in waiting
    assert "SHA256:" in waiting
    assert cli("runners", "approve", "offered").returncode == 0
    said(runner, "available as offered")
    now = shown(cli)
    assert (now["state"], now["labels"]) == ("ready", ["desk"])
    (line,) = (person.home / ".ssh" / "authorized_keys").read_text().splitlines()
    assert line.startswith("restrict,pty ssh-ed25519 ")

    project = single(tmp_path / "p", busybox, "while ! [ -e go ]; do sleep 0.1; done")
    first = cli("run", "job", "-q", "-d", cwd=project).stdout.strip()
    until(lambda: status(cli, first) == "running", "the job runs")
    runner.send_signal(signal.SIGSTOP)
    until(lambda: "has sent no heartbeat for" in (shown(cli)["reason"] or ""), "the silence is noticed")
    assert shown(cli)["state"] == "drained"
    second = cli("run", "job", "-q", "-d", cwd=project).stdout.strip()
    until(lambda: "no heartbeat" in (json.loads(cli("runs", second, "--json").stdout)["reason"] or ""), "it says why")
    assert (status(cli, first), status(cli, second)) == ("running", "queued")
    runner.send_signal(signal.SIGCONT)
    until(lambda: shown(cli)["state"] == "ready", "it is back")
    until(lambda: status(cli, second) == "running", "the second job runs, too")
    assert cli("stop", "-y", "--abort", first, second).returncode == 0
    until(lambda: shown(cli)["jobs"] == [], "both have ended")

    runner.send_signal(signal.SIGTERM)
    said(runner, "dstack-runner was stopped; offered gets no new jobs")
    assert runner.wait(30) == 0
    assert [path for path in home_of(person) if ".ssh" in path] == []

    again = offer()
    said(again, "available as offered")
    assert cli("runners", "remove", "offered").stderr == "offered: removed; nothing is left on the machine\n"
    assert home_of(person) == before
    said(again, "'offered' was removed, or another machine has registered under this name")
    assert again.wait(30) == 2


def test_a_machine_that_is_offered_until_a_time_of_day(offer: Offer, cli: Cli, person: account.Account) -> None:
    moment = datetime.datetime.now() + datetime.timedelta(seconds=8)
    until_then = moment.strftime("%H:%M:%S")
    before = home_of(person)

    runner = offer("--until", until_then, "--cleanup", token=cli("runners", "token").stdout.strip())
    said(runner, "available as offered")
    said(runner, f"it was available until {until_then}; offered gets no new jobs")
    assert runner.wait(30) == 0

    now = shown(cli)
    assert (now["state"], now["reason"]) == ("drained", f"no longer offered: it was available until {until_then}")
    assert home_of(person) == before
    assert cli("runners", "remove", "--force", "offered").returncode == 0


@pytest.fixture
def python38(folder: Path) -> Iterator[list[str]]:
    """A command line that runs Python 3.8 as the machine's user."""
    if found := shutil.which("python3.8", path="/usr/bin:/usr/local/bin:/bin"):
        yield [found]
        return
    private = sorted(Path("~/.pyenv/versions").expanduser().glob("3.8.*"))
    if not private or os.geteuid() != 0:
        pytest.skip("no Python 3.8 on this machine")
    place = folder / "python3.8"
    place.mkdir()
    subprocess.run(["mount", "--bind", private[-1], place], check=True)
    try:
        yield ["env", f"PYTHONHOME={place}", f"LD_LIBRARY_PATH={place}/lib", str(place / "bin" / "python3.8")]
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_oldest_python_from_a_pipe(
    cli: Cli, url: str, person: account.Account, sshd: Sshd, docker: list[str], python38: list[str]
) -> None:
    """`curl -fsS SERVER/dstack-runner | DSTACK_TOKEN=T python3.8 -`."""
    token = cli("runners", "token").stdout.strip()
    known = ("--port", str(sshd.port), "--host-key", str(sshd.folder / "host_key.pub"))
    python = shlex.join([*python38, "-W", "error", "-", "--name", "offered", "--once", *known])
    done = subprocess.run(
        ["sh", "-c", f"curl -fsS {url}/dstack-runner | {python}"],
        env={"PATH": os.environ["PATH"], "HOME": str(person.home), "DSTACK_TOKEN": token},
        cwd=person.home,
        user=person.uid,
        group=person.home.stat().st_gid,
        extra_groups=[account.docker_group()],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "dstack-runner: available as offered\n")
    assert shown(cli)["state"] == "ready"
    assert cli("runners", "remove", "offered").returncode == 0


def test_a_token_that_was_made_for_one_machine(offer: Offer, cli: Cli) -> None:
    token = cli("runners", "token").stdout.strip()

    once = offer("--once", token=token)
    said(once, "available as offered")
    assert once.wait(30) == 0
    assert shown(cli)["state"] == "ready"
    assert cli("runners", "remove", "offered").returncode == 0

    second = offer("--once", token=token)
    said(second, "the registration token is invalid, or already used")
    assert second.wait(30) == 2


def test_others_who_use_the_gpus(offer: Offer, cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = folder / "tools"
    tools.mkdir()
    smi = tools / "nvidia-smi"
    smi.write_text('#!/bin/sh\ncase $1 in --query-compute-apps*) echo "$$, /usr/bin/blender" ;; esac\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    runner = offer("--unless-busy", token=cli("runners", "token").stdout.strip())

    assert "its GPUs are used by blender (" in said(runner, "gets no new jobs")
    now = shown(cli)
    assert now["state"] == "drained"
    assert "no longer offered: its GPUs are used by blender" in now["reason"]
    smi.write_text("#!/bin/sh\n")
    said(runner, "available as offered")
    until(lambda: shown(cli)["state"] == "ready", "it is ready")
    assert cli("runners", "remove", "offered").returncode == 0


def test_wrong_tokens(offer: Offer) -> None:
    runner = offer(token="")
    said(runner, "the server requires a token")
    assert runner.wait(30) == 2


def test_over_the_socket_the_owner_needs_no_approval(cli: Cli, dstack_home: Home) -> None:
    cli("server", "start")
    server = runner.Server(str(dstack_home.dstack / "server" / "socket"), None)
    machine = {"name": "here", "user": "u", "address": "127.0.0.1", "port": 1, "host_keys": ["ssh-ed25519 AAAA"]}

    answer = server.post("/registrations", machine)

    assert (answer["approved"], answer["name"]) == (True, "here")
    assert answer["key"].startswith("ssh-ed25519 ")
    path = "/registrations/here/heartbeat"
    with pytest.raises(runner.RunnerError, match="another machine has registered under this name"):
        server.post(path, {"secret": "guessed"})
    heard = server.post(path, {"secret": answer["secret"]})
    assert heard["state"] == "refused"
    assert "127.0.0.1:1 can't be reached" in heard["words"]
    assert cli("runners", "add", "local", "--name", "here").returncode == 0
    with pytest.raises(runner.RunnerError, match="'here' is already another machine"):
        server.post("/registrations", {**machine, "port": 2})
