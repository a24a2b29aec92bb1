"""Machines in every condition: each problem has a finding and a fix, and a removed machine is as it was before."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dstack.commands.command import Result
from dstack.commands.machine.probe import probe
from dstack.model.runner.runner import Facts
from tests.conftest import Cli
from tests.e2e.project import single
from tests.environment import account
from tests.environment.daemon import Daemon
from tests.environment.product import Home
from tests.environment.sshd import Sshd, free_port
from tests.environment.waiting import until
from tests.images import BUSYBOX


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dsm-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def person(folder: Path, docker: list[str]) -> Iterator[account.Account]:
    made = account.create(f"dstack-m-{os.getpid()}", folder / "home", account.docker_group())
    try:
        yield made
    finally:
        account.remove(made)


@pytest.fixture
def server(folder: Path, person: account.Account) -> Iterator[Sshd]:
    """An sshd that accepts its own keys and those in the user's home."""
    keys = f"AuthorizedKeysFile {folder}/sshd/authorized_keys .ssh/authorized_keys"
    server = Sshd(folder / "sshd", person.name)
    server.first = (keys,)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def add(dstack_home: Home, cli: Cli, server: Sshd) -> Callable[..., subprocess.CompletedProcess[str]]:
    def add(*options: str, name: str = "m") -> subprocess.CompletedProcess[str]:
        dstack_home.serve()
        known = ("--identity", str(server.identity), "--fingerprint", server.fingerprint)
        return cli("runners", "add", f"{server.user}@{server.host}:{server.port}", "--name", name, *known, *options)

    return add


Add = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def mounted(path: Path, owner: account.Account, *options: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True)
    try:
        os.chown(path, owner.uid, owner.uid)
        for option in options:
            subprocess.run(["mount", "-o", f"remount,{option}", path], check=True)
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
        path.rmdir()


def test_a_full_disk(add: Add, folder: Path, person: account.Account) -> None:
    with mounted(folder / "full", person) as full:
        done = add("--root", str(full))

    assert done.returncode == 125
    assert f"can't run jobs: the disk of {full} is full: 1 MB of 1 MB free; it was not added" in done.stderr
    assert f"fix: find what fills it: sudo du -xh --max-depth=2 {full} | sort -h | tail" in done.stderr


def test_a_read_only_home(add: Add, folder: Path, person: account.Account) -> None:
    with mounted(folder / "fixed", person, "ro") as fixed:
        done = add("--root", f"{fixed}/d")

    assert done.returncode == 125
    assert f"{fixed} is on a file system that is mounted read-only ({fixed})" in done.stderr
    assert f"fix: sudo mount -o remount,rw {fixed}, or choose another folder with --root" in done.stderr


def test_a_stopped_daemon_takes_no_jobs_and_comes_back_by_itself(
    add: Add, cli: Cli, own_dockerd: Daemon, person: account.Account, tmp_path: Path
) -> None:
    os.chown(own_dockerd.socket, person.uid, -1)
    own = " ".join(own_dockerd.command)
    added = add("--docker", own)
    assert added.returncode == 0, added.stderr

    own_dockerd.stop()
    checked = cli("runners", "check", "m")
    assert checked.returncode == 125
    assert "m: unusable: Docker does not answer: " in checked.stderr
    assert "  why: every job runs in a container\n  fix: sudo systemctl start docker\n" in checked.stderr
    refused = add("--docker", own, name="other")
    assert refused.returncode == 125
    assert "can't run jobs: Docker does not answer" in refused.stderr

    folder = single(tmp_path / "p", BUSYBOX, "echo ran")
    run = cli("run", "job", "-q", "-d", cwd=folder).stdout.strip()
    until(lambda: "unusable" in (json.loads(cli("runs", run, "--json").stdout)["reason"] or ""), "the job says why")
    own_dockerd.start()
    os.chown(own_dockerd.socket, person.uid, -1)
    assert cli("wait", run).returncode == 0
    assert cli("runners", "remove", "m").returncode == 0


def test_a_changed_host_key_gets_no_command(add: Add, cli: Cli, server: Sshd, folder: Path) -> None:
    assert add().returncode == 0
    before = server.fingerprint
    server.close()
    for name in ("host_key", "host_key.pub"):
        (folder / "sshd" / name).unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "sshd" / "host_key"], check=True)
    cli("server", "stop")
    server.start()

    seen = len(server.log)
    checked = cli("runners", "check", "m")

    assert checked.returncode == 125
    changed = f"the host key changed from {before} to {server.fingerprint}; dstack did not log in"
    assert f"m: unusable: {server.user}@{server.host}:{server.port}: {changed}" in checked.stderr
    assert (
        "hint: if the machine was reinstalled: dstack runners remove --force m, then dstack runners add"
        in checked.stderr
    )
    assert "Accepted" not in server.log[seen:]
    assert cli("runners", "remove", "--force", "m").returncode == 0


@contextmanager
def jailed(folder: Path, person: account.Account, *lacks: str) -> Iterator[tuple[Sshd, Path]]:
    """A machine with only busybox, without some of its programs, and its own sshd. Also returns its root folder."""
    jail = Path(f"/run/dstack-jail-{os.getpid()}")  # sshd wants every folder above to be root's alone
    jail.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", jail], check=True)
    for name in ("bin", "dev", "proc", "etc", "tmp", f"home/{person.name}"):
        (jail / name).mkdir(parents=True)
    os.mknod(jail / "dev" / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (jail / "dev" / "null").chmod(0o666)
    shutil.copy(shutil.which("busybox") or "", jail / "bin")
    for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet not in ("busybox", *lacks):
            (jail / "bin" / applet).symlink_to("busybox")
    script(jail / "bin" / "bash", 'exec sh "$@"')
    (jail / "etc" / "passwd").write_text(f"{person.name}:x:{person.uid}:{person.uid}::/home/{person.name}:/bin/sh\n")
    os.chown(jail / "home" / person.name, person.uid, person.uid)
    subprocess.run(["mount", "--bind", "/proc", jail / "proc"], check=True)
    bare = Sshd(folder / "bare", person.name, [f"ChrootDirectory {jail}"])
    try:
        bare.start()
        yield bare, jail
    finally:
        bare.close()
        subprocess.run(["umount", jail / "proc", jail], check=True)
        jail.rmdir()


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_machine_without_docker_and_git(cli: Cli, folder: Path, person: account.Account) -> None:
    with jailed(folder, person, "flock") as (bare, _):
        known = ("--identity", str(bare.identity), "--fingerprint", bare.fingerprint)
        done = cli("runners", "add", f"{bare.user}@{bare.host}:{bare.port}", *known)

    assert done.returncode == 125
    assert (
        """
  'docker' is not installed
    why: every job runs in a container
    fix: sudo apt-get install docker.io, or the equivalent for your system's package manager
  git is not installed
    why: dstack transfers your code as git objects
    fix: sudo apt-get install git, or the equivalent for your system's package manager
  'flock' is not installed
    why: dstack uses it to launch jobs one at a time
    fix: sudo apt-get install util-linux, or the equivalent for your system's package manager
"""
        in done.stderr
    )


def test_a_machine_that_is_worn(cli: Cli, folder: Path, person: account.Account) -> None:
    """Its memory is used up, its disk is mounted noexec and has no free inodes, and it lacks curl."""
    place = f"/home/{person.name}"
    with jailed(folder, person) as (bare, jail), ExitStack() as undo:
        used = folder / "meminfo"
        used.write_text("MemTotal:        8000000 kB\nMemFree:           10000 kB\nMemAvailable:     200000 kB\n")
        options = f"mode=700,uid={person.uid},noexec,nr_inodes=60"
        disk = ("-t", "tmpfs", "-o", options, "tmpfs", f"{jail}{place}")
        for words in (("--bind", str(used), f"{jail}/proc/meminfo"), disk):
            subprocess.run(["mount", *words], check=True)
            undo.callback(subprocess.run, ["umount", words[-1]], check=True)
        known = ("--identity", str(bare.identity), "--fingerprint", bare.fingerprint)
        done = cli("runners", "add", f"{bare.user}@{bare.host}:{bare.port}", "--root", place, *known)

    assert done.returncode == 125
    assert f"  the disk of {place} has almost no inodes left: " in done.stderr
    assert "    why: no files can be created there\n" in done.stderr
    assert (
        f"""
  'curl' is not installed
    why: dstack uses it to upload artifacts to S3
    fix: sudo apt-get install curl, or the equivalent for your system's package manager
  {place} is on a file system that is mounted noexec ({place})
    why: a job can't run programs from its own tree, such as ./run.sh
    fix: choose another folder with --root, or: sudo mount -o remount,exec {place}
"""
        in done.stderr
    )
    assert (
        """
  only 195.3 MB of memory is available
    why: jobs may run out of it
    fix: find what uses it: ps aux --sort=-rss | head
"""
        in done.stderr
    )


def test_a_clock_that_is_off(add: Add, cli: Cli, server: Sshd, folder: Path) -> None:
    tools = folder / "tools"
    tools.mkdir()
    script(tools / "date", f"echo {round(time.time()) - 3600}")
    server.close()
    server.first = (*server.first, f"SetEnv PATH={tools}:/usr/bin:/bin")
    server.start()

    done = add()

    assert done.returncode == 0
    assert re.fullmatch(
        r"m: ready, but its clock is 36\d\d seconds behind the server's\n"
        r"  why: S3 rejects uploads from a machine whose clock is wrong\n"
        r"  fix: sudo timedatectl set-ntp true\n",
        done.stderr,
    )
    assert cli("runners", "remove", "m").returncode == 0


def snapshot(home: Path) -> str:
    """Return the output of `find` and `sha256sum` in a home, with owners and modes."""
    found = []
    for path in sorted(home.rglob("*")):
        state = path.lstat()
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found.append(f"{path} {state.st_mode:o} {state.st_uid}:{state.st_gid} {data}")
    return "\n".join(found)


@pytest.mark.parametrize("keys", [None, "ssh-ed25519 AAAA of somebody"])
def test_a_removed_machine_is_as_it_was_before(
    add: Add, cli: Cli, person: account.Account, busybox: str, tmp_path: Path, keys: str | None, docker: list[str]
) -> None:
    ssh = person.home / ".ssh"
    shutil.rmtree(ssh, ignore_errors=True)
    if keys is not None:
        ssh.mkdir(mode=0o750)
        (ssh / "authorized_keys").write_text(keys)
        for path in (ssh, ssh / "authorized_keys"):
            os.chown(path, person.uid, person.uid)
    before = snapshot(person.home)

    added = add("--authorize")
    assert added.returncode == 0, added.stderr
    allowed = (ssh / "authorized_keys").read_text()
    assert "restrict,pty ssh-ed25519 " in allowed
    project = single(
        tmp_path / "p",
        busybox,
        "mkdir -p out/deep && echo x > out/deep/file && chmod 0 out/deep/file && mkdir -m 0 out/closed",
        more="artifacts: [{path: nothing, optional: true}]",
    )
    ran = cli("run", "job", cwd=project)
    assert ran.returncode == 0, ran.stderr
    assert (person.home / ".dstack-host").exists()  # the job's own folder may be going at this moment
    (ours,) = (path.name for path in (person.home / ".dstack-host").glob("*/*"))

    removed = cli("runners", "remove", "m")
    assert (removed.returncode, removed.stderr) == (0, "m: removed; nothing is left on the machine\n")
    assert snapshot(person.home) == before
    for noun in (["images"], ["ps"], ["volume", "ls"]):
        listed = [*docker, *noun, "--quiet", "--filter", f"label=dstack.server={ours}"]
        assert subprocess.run(listed, capture_output=True, text=True, check=True).stdout == ""


def test_a_drained_machine_gets_no_new_jobs(add: Add, cli: Cli, busybox: str, tmp_path: Path) -> None:
    assert add().returncode == 0
    first = single(tmp_path / "p", busybox, "while ! [ -e go ]; do sleep 0.1; done")
    running = cli("run", "job", "-q", "-d", cwd=first).stdout.strip()
    until(lambda: json.loads(cli("runs", running, "--json").stdout)["status"] == "running", "it runs")

    drained = cli("runners", "drain", "m", "--reason", "new disk")
    assert (drained.returncode, drained.stderr) == (0, "m: gets no new jobs; 1 job keeps running\n")
    shown = json.loads(cli("runners", "--json").stdout)[0]
    assert (shown["state"], shown["reason"]) == ("drained", "new disk")
    waits = cli("run", "job", "-q", "-d", "--name", "second", cwd=first)
    second = waits.stdout.strip()
    until(lambda: "new disk" in (json.loads(cli("runs", second, "--json").stdout)["reason"] or ""), "it says why")
    assert cli("stop", "-y", running).returncode == 0
    assert "m: idle" in cli("runners", "drain", "m", "--wait").stderr

    assert cli("runners", "resume", "m").stderr == "m: gets jobs again\n"
    until(lambda: json.loads(cli("runs", second, "--json").stdout)["status"] == "running", "it runs after all")
    assert cli("stop", "-y", second).returncode == 0
    cli("wait", second)
    assert cli("runners", "remove", "m").returncode == 0


def test_the_agent_of_the_session_that_asks_is_used(cli: Cli, server: Sshd, folder: Path) -> None:
    """The server starts without an agent, as from cron. Then comes a session with one, and later another."""
    cli("server", "start")
    known = ("--fingerprint", server.fingerprint)
    words = ("runners", "add", f"{server.user}@{server.host}:{server.port}", "--name", "m", *known)
    refused = cli(*words)
    assert refused.returncode == 125
    assert "keys tried: none found" in refused.stderr

    for number in (1, 2):
        socket = folder / f"agent-{number}"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
        try:
            until(socket.exists, "the agent listens")
            environment = {"SSH_AUTH_SOCK": str(socket)}
            subprocess.run(
                ["ssh-add", "-q", server.identity], env={**os.environ, **environment}, check=True, capture_output=True
            )
            done = cli(*words, env=environment)
            assert done.returncode == 0, done.stderr
            assert cli("runners", "remove", "m", env=environment).returncode == 0
        finally:
            agent.terminate()
            agent.wait()


def test_twenty_machines_behind_two_jump_hosts_are_imported(
    cli: Cli, server: Sshd, folder: Path, person: account.Account, dstack_home: Home, tmp_path: Path
) -> None:
    hops = [Sshd(folder / f"hop-{number}", person.name) for number in (1, 2)]
    ssh = dstack_home.path / ".ssh"
    ssh.mkdir(mode=0o700)
    text = ""
    for number, hop in enumerate(hops, 1):
        hop.start()
        text += f"Host hop-{number}\n  HostName {hop.host}\n  Port {hop.port}\n  User {hop.user}\n"
        text += f"  IdentityFile {hop.identity}\n" + (f"  ProxyJump hop-{number - 1}\n" if number > 1 else "")
    (ssh / "config").write_text(text)
    keys = [(hop.host, hop.port, hop.host_key) for hop in (*hops, server)]
    (ssh / "known_hosts").write_text("".join(f"[{host}]:{port} {key}\n" for host, port, key in keys))
    file = tmp_path / "hosts.ini"

    def write(count: int, label: str) -> None:
        lines = [f"[lab]\nm[01:{count:02}] dstack_root={folder}/home/roots/m ansible_host={server.host}\n[lab:vars]"]
        lines += [f"ansible_user={server.user}", f"ansible_port={server.port}"]
        lines += [f"ansible_ssh_private_key_file={server.identity}", f"dstack_labels={label}"]
        lines += ["ansible_ssh_common_args=-J hop-2"]
        file.write_text("\n".join(lines) + "\n")

    try:
        write(20, "old")
        shown = cli("runners", "import", file, "--dry-run")
        assert shown.stdout.splitlines()[0].startswith(
            f"m01: add {server.user}@{server.host}:{server.port}, labels lab"
        )
        assert json.loads(cli("runners", "--json").stdout) == []

        done = cli("runners", "import", file)
        assert done.returncode == 0, done.stderr
        assert [line.split(":")[1].strip() for line in done.stdout.splitlines()] == [
            f"added, {server.user}@127.0.0.1"
        ] * 20
        runners = json.loads(cli("runners", "--json").stdout)
        assert [(each["state"], each["labels"]) for each in runners] == [("ready", ["lab", "old"])] * 20
        logins = [hop.log.count("Accepted publickey") for hop in hops]
        assert logins == [1, 1], "one connection to a bastion serves all machines behind it"

        assert cli("runners", "import", file).stdout == "".join(f"m{number:02}: unchanged\n" for number in range(1, 21))
        write(19, "new")
        changed = cli("runners", "import", file)
        assert changed.returncode == 0, changed.stderr
        assert changed.stdout.splitlines()[0] == "m01: changed labels: lab, old -> lab, new"
        others = ", ".join(f"m{number:02}" for number in range(1, 20))
        assert changed.stdout.splitlines()[-1] == f"m20: removed; its folder stays, because {others} use it"
        assert len(json.loads(cli("runners", "--json").stdout)) == 19
    finally:
        for hop in hops:
            hop.close()


def test_what_a_job_uses_is_sampled(add: Add, cli: Cli, busybox: str, tmp_path: Path) -> None:
    added = add()
    assert added.returncode == 0, added.stderr
    busy = single(tmp_path / "p", busybox, "while ! [ -e /workflow/stop ]; do :; done")
    run = cli("run", "job", "-q", "-d", cwd=busy).stdout.strip()

    def points() -> list[dict[str, float]]:
        found: list[dict[str, float]] = json.loads(cli("runs", run, "--metrics", "--json").stdout)[0]["points"]
        return found

    until(lambda: len(points()) >= 2, "two samples after the first")
    (machine,) = json.loads(cli("runners", "--json").stdout)
    assert machine["use"]["memory_used"] > 2**20
    assert 0 < machine["use"]["cpu"] <= 100
    assert cli("stop", "-y", "--abort", run).returncode == 0
    cli("wait", run)

    assert any(0.05 < point["cpu"] < 1.5 for point in points())
    assert all(point["memory"] >= 0 for point in points())
    shown = cli("runs", run, "--metrics").stdout
    assert shown.startswith("job on m, ")
    assert "\n  cpu        " in shown
    assert cli("runners", "remove", "m").returncode == 0


def test_a_teams_server_without_keys_is_let_in_with_the_users(
    cli: Cli, server: Sshd, folder: Path, person: account.Account
) -> None:
    before = snapshot(person.home)
    port = free_port()
    assert cli("server", "start", "--port", str(port), env={"DSTACK_TOKEN": "t"}).returncode == 0
    socket = folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        until(socket.exists, "the agent listens")
        mine = {"SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", server.identity], env={**os.environ, **mine}, check=True, capture_output=True)
        team = {"DSTACK_SERVER_URL": f"http://127.0.0.1:{port}", "DSTACK_TOKEN": "t"}
        there = f"{server.user}@{server.host}:{server.port}"
        words = ("runners", "add", there, "--name", "m", "--fingerprint", server.fingerprint)
        done = cli(*words, env={**mine, **team})
    finally:
        agent.terminate()
        agent.wait()

    assert done.returncode == 0, done.stderr
    assert f"installing the server's key on {there}" in done.stderr
    assert cli("runners", "check", "m", env=team).returncode == 0
    assert cli("runners", "remove", "m", env=team).returncode == 0
    assert snapshot(person.home) == before


def test_whether_containers_get_the_gpus(own_dockerd: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First without NVIDIA's toolkit, then with a stand-in for its hook, which makes Docker accept `--gpus`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in (
        ("nvidia-smi", "echo 0, NVIDIA L4, 23034, GPU-1, 550.90.07"),
        ("nvidia-container-runtime-hook", "cat > /dev/null"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    command = probe(str(tmp_path / "root"), " ".join(own_dockerd.command), thorough=True)
    path = f"{tools}:{os.environ['PATH']}"

    def found() -> Facts:
        done = subprocess.run(["sh", "-c", command.script], env={"PATH": path}, capture_output=True, check=False)
        return command.parse(Result(done.returncode, done.stdout, done.stderr))

    images = own_dockerd.docker("images", "-aq")
    without = found()
    own_dockerd.stop()
    monkeypatch.setenv("PATH", path)
    own_dockerd.start()
    with_toolkit = found()

    (finding,) = [each for each in without.findings if each.name == "gpu-toolkit"]
    assert 'could not select device driver "" with capabilities: [[gpu]]' in finding.what
    assert [each.name for each in with_toolkit.findings if each.name.startswith("gpu")] == []
    assert [(gpu.name, gpu.driver) for gpu in with_toolkit.gpus] == [("NVIDIA L4", "550.90.07")]
    assert own_dockerd.docker("ps", "-aq") == ""
    assert own_dockerd.docker("images", "-aq") == images


def test_a_certificate_over_ipv6(cli: Cli, folder: Path, person: account.Account, dstack_home: Home) -> None:
    """The machine trusts only an authority: it has no file with the user's key."""
    authority = folder / "authority"
    server = Sshd(folder / "certified", person.name, [f"TrustedUserCAKeys {authority}.pub"])
    server.first = ("ListenAddress ::1", "AuthorizedKeysFile none")
    ssh = dstack_home.path / ".ssh"
    ssh.mkdir(mode=0o700)
    key = ssh / "id_ed25519"
    for path in (authority, key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    server.first = (f"Port {server.port}", *server.first)
    server.start()
    try:
        words = ("runners", "add", f"{person.name}@[::1]:{server.port}", "--fingerprint", server.fingerprint)
        refused = cli(*words)
        sign = ["ssh-keygen", "-q", "-s", authority, "-I", "test", "-n", person.name, f"{key}.pub"]
        subprocess.run(sign, check=True, capture_output=True)
        done = cli(*words, "--name", "m")
        assert cli("runners", "remove", "m").returncode == 0
    finally:
        server.close()

    assert refused.returncode == 125
    assert f"refused the login of {person.name}; keys tried: " in refused.stderr
    assert done.returncode == 0, done.stderr
