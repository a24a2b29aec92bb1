"""Adding and changing runners: which keys are trusted, what prevents it, and changes while jobs run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Cli
from tests.e2e.project import single
from tests.environment import account
from tests.environment.daemon import Daemon
from tests.environment.product import Home
from tests.environment.sshd import Sshd
from tests.environment.waiting import until


def words(sshd: Sshd, *options: str) -> list[str]:
    there = f"{sshd.user}@{sshd.host}:{sshd.port}"
    return ["runners", "add", there, "--name", "m", "--identity", str(sshd.identity), *options]


def test_a_key_that_nobody_vouched_for_gets_no_login(cli: Cli, sshd: Sshd, docker: list[str]) -> None:
    before = sshd.log.count("Accepted")

    unknown = cli(*words(sshd))
    wrong = cli(*words(sshd, "--fingerprint", f"SHA256:{'A' * 43}"))

    key = f"the host key of {sshd.user}@{sshd.host}:{sshd.port} is"
    assert unknown.returncode == 125
    assert f"{key} not trusted yet: {sshd.fingerprint}" in unknown.stderr
    assert f"--fingerprint {sshd.fingerprint}" in unknown.stderr
    assert wrong.returncode == 2
    assert f"{key} {sshd.fingerprint}, not SHA256:AAA" in wrong.stderr
    coded = cli(*words(sshd, "--fingerprint", f"SHA256:{'A' * 43}", "--json"))
    assert json.loads(coded.stderr)["error"]["code"] == "host-key"
    assert sshd.log.count("Accepted") == before
    assert json.loads(cli("runners", "--json").stdout) == []


def test_a_key_of_known_hosts_is_taken_and_shown(cli: Cli, sshd: Sshd, docker: list[str], dstack_home: Home) -> None:
    ssh = dstack_home.path / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "known_hosts").write_text(f"[{sshd.host}]:{sshd.port} {sshd.host_key}\n")

    added = cli(*words(sshd))

    assert added.returncode == 0, added.stderr
    assert "asyncssh" not in cli("server", "logs").stdout, "it would tell of every session"
    asked = {"COMP_WORDS": "dstack runners check ", "COMP_CWORD": "3", "_DSTACK_COMPLETE": "bash_complete"}
    assert cli(env=asked).stdout == "plain,m\n"
    assert f"host key   {sshd.fingerprint} (ssh-ed25519)\n" in added.stdout
    assert json.loads(cli("runners", "--json").stdout)[0]["host_key"] == sshd.host_key
    assert cli("runners", "remove", "m").returncode == 0


def test_a_key_that_an_authority_of_known_hosts_certified(
    cli: Cli, user: account.Account, docker: list[str], dstack_home: Home, session_folder: Path
) -> None:
    server = Sshd(session_folder / "certified", user.name)
    server.start()
    server.close()
    authority, key = session_folder / "authority", server.folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority], check=True)
    sign = ["ssh-keygen", "-q", "-s", authority, "-h", "-I", "box", "-n", server.host, f"{key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    server.first = (f"HostCertificate {key}-cert.pub",)
    server.start()
    ssh = dstack_home.path / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "known_hosts").write_text(f"@cert-authority * {Path(f'{authority}.pub').read_text()}")
    try:
        added = cli(*words(server))
        assert cli("runners", "check", "m").returncode == 0
        assert cli("runners", "remove", "m").returncode == 0
    finally:
        server.close()

    assert added.returncode == 0, added.stderr
    assert f"host key   {server.fingerprint} (ssh-ed25519)\n" in added.stdout


@contextmanager
def mounted(path: Path, owner: account.Account, options: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        os.chown(path, owner.uid, owner.uid)
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
        path.rmdir()


def test_a_root_without_inodes(
    cli: Cli, sshd: Sshd, user: account.Account, docker: list[str], session_folder: Path
) -> None:
    with mounted(session_folder / "few", user, "nr_inodes=90,size=6g") as few:
        done = cli(*words(sshd, "--fingerprint", sshd.fingerprint, "--root", str(few)))

    assert done.returncode == 125
    assert f"the disk of {few} has almost no inodes left: 89 of 90 free" in done.stderr
    assert "why: no files can be created there" in done.stderr


def test_a_root_where_nothing_may_be_run(
    cli: Cli, sshd: Sshd, user: account.Account, docker: list[str], session_folder: Path
) -> None:
    with mounted(session_folder / "noexec", user, "noexec,size=6g") as folder:
        done = cli(*words(sshd, "--fingerprint", sshd.fingerprint, "--root", str(folder)))
        assert cli("runners", "remove", "m").returncode == 0

    assert done.returncode == 0
    assert f"m: ready, but {folder} is on a file system that is mounted noexec ({folder})" in done.stderr
    assert f"fix: choose another folder with --root, or: sudo mount -o remount,exec {folder}" in done.stderr


def test_a_user_who_may_not_use_docker(cli: Cli, tmp_path: Path, docker: list[str], session_folder: Path) -> None:
    person = account.create(f"dstack-p-{os.getpid()}", session_folder / "person", os.getgid())
    server = Sshd(session_folder / "sshd-person", person.name)
    try:
        server.start()
        done = cli(*words(server, "--fingerprint", server.fingerprint))
    finally:
        server.close()
        account.remove(person)

    assert done.returncode == 125
    assert f"can't run jobs: {person.name} is not allowed to use Docker: " in done.stderr
    assert "ermission denied" in done.stderr
    assert f"hint: sudo usermod -aG docker {person.name}" in done.stderr


def write(inventory: Path, sshd: Sshd, *variables: str) -> None:
    known = f"ansible_host={sshd.host} ansible_port={sshd.port} ansible_user={sshd.user}"
    key = f"ansible_ssh_private_key_file={sshd.identity} dstack_fingerprint={sshd.fingerprint}"
    inventory.write_text(f"[lab]\nm {known} {key} {' '.join(variables)}\n")


def test_an_import_changes_a_machine_that_runs_a_job(
    cli: Cli, sshd: Sshd, user: account.Account, busybox: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.ini"
    write(inventory, sshd)
    assert cli("runners", "import", inventory).returncode == 0
    folder = single(tmp_path / "p", busybox, "while ! [ -e go ]; do sleep 0.1; done; echo done")
    run = cli("run", "job", "-q", "-d", cwd=folder).stdout.strip()
    until(lambda: json.loads(cli("runs", run, "--json").stdout)["status"] == "running", "it runs")

    write(inventory, sshd, "dstack_labels=fast", "dstack_gpus=2")
    changed = cli("runners", "import", inventory)
    assert (changed.returncode, changed.stdout) == (
        0,
        "m: changed labels: lab -> lab, fast; gpus: detected -> 2\n",
    )
    write(inventory, sshd, "dstack_labels=fast", "dstack_gpus=2", "dstack_root=~/elsewhere")
    refused = cli("runners", "import", inventory)
    assert refused.returncode == 125
    assert f"m can't be changed to another machine, root or docker while it runs job of {run}" in refused.stderr
    (machine,) = json.loads(cli("runners", "--json").stdout)
    assert (machine["labels"], len(machine["jobs"])) == (["lab", "fast"], 1)

    inventory.write_text("[lab]\n")
    gone = cli("runners", "import", inventory)
    assert (gone.returncode, gone.stdout) == (
        0,
        "m: drained; it still runs jobs, so import the file again after they end to remove it\n",
    )

    write(inventory, sshd, "dstack_labels=fast", "dstack_gpus=2")
    assert cli("runners", "import", inventory).stdout == "m: changed drained: no longer in the inventory -> no\n"
    assert json.loads(cli("runners", "--json").stdout)[0]["state"] == "ready"
    inventory.write_text("[lab]\n")
    assert cli("runners", "import", inventory).stdout == gone.stdout
    (tree,) = (user.home / ".dstack-host").glob("*/*/jobs/*/workflow")
    (tree / "go").touch()
    assert cli("wait", run).returncode == 0
    assert cli("logs", run).stdout == "done\n"
    assert cli("runners", "import", inventory).stdout == "m: removed; nothing is left on the machine\n"


def test_a_users_own_docker_is_found(
    cli: Cli, own_dockerd: Daemon, docker: list[str], session_folder: Path, busybox: str, tmp_path: Path
) -> None:
    """The socket is where rootless Docker listens, which only the login's environment tells. It runs as root."""
    person = account.create(f"dstack-o-{os.getpid()}", session_folder / "owner", os.getgid())
    server = Sshd(session_folder / "sshd-owner", person.name)
    own = Path(f"/run/user/{person.uid}/docker.sock")
    own.parent.mkdir(parents=True)
    own.symlink_to(own_dockerd.socket)
    os.chown(own_dockerd.socket, person.uid, -1)
    try:
        server.start()
        refused = cli(*words(server, "--fingerprint", server.fingerprint))
        added = cli(*words(server, "--fingerprint", server.fingerprint, "--docker", f"docker -H unix://{own}"))
        ran = cli("run", "job", cwd=single(tmp_path / "p", busybox, "echo there"))
        assert cli("runners", "remove", "m").returncode == 0
    finally:
        server.close()
        own.unlink()
        own.parent.rmdir()
        account.remove(person)

    assert refused.returncode == 125
    assert f"{person.name} has a rootless Docker at {own}, and can't use the machine's Docker:" in refused.stderr
    assert f"fix: add it with --docker 'docker -H unix://{own}'" in refused.stderr
    assert added.returncode == 0, added.stderr
    assert (ran.returncode, ran.stdout) == (0, "there\n"), ran.stderr
