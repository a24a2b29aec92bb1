"""One machine is one machine, whatever it is called: one set of leases, and removing one name harms no other."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, remove_containers
from tests.e2e.project import single
from tests.environment import account
from tests.environment.account import Account
from tests.environment.product import Home
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

UNTIL_GO = "while ! [ -e go ]; do sleep 0.1; done; echo made > out"


@pytest.fixture(scope="module")
def people(docker: list[str]) -> Iterator[dict[str, Account]]:
    """Two accounts of one machine."""
    folder = Path(tempfile.mkdtemp(prefix="do-", dir="/tmp"))
    folder.chmod(0o755)
    made: dict[str, Account] = {}
    try:
        for name in ("ann", "bob"):
            made[name] = account.create(f"d{name}-{os.getpid()}", folder / name, account.docker_group())
        yield made
    finally:
        for person in made.values():
            remove_containers(docker, person.home)
            account.remove(person)
        subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(scope="module")
def door(people: dict[str, Account]) -> Iterator[Sshd]:
    """Its SSH server, which lets both in."""
    folder = Path(tempfile.mkdtemp(prefix="ds-", dir="/tmp"))
    folder.chmod(0o755)
    server = Sshd(folder / "sshd", " ".join(person.name for person in people.values()))
    server.first = (f"AuthorizedKeysFile {folder}/sshd/authorized_keys .ssh/authorized_keys",)
    server.start()
    try:
        yield server
    finally:
        server.close()
        subprocess.run(["rm", "-rf", folder], check=True)


Add = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def add(dstack_home: Home, cli: Cli, people: dict[str, Account], door: Sshd) -> Add:
    """`add(name, person)` adds the machine under this name, as this person."""
    dstack_home.serve()

    def add(name: str, person: str, *options: str) -> subprocess.CompletedProcess[str]:
        keys = ("--identity", str(door.identity), "--fingerprint", door.fingerprint)
        address = f"{people[person].name}@{door.host}:{door.port}"
        done = cli("runners", "add", address, "--name", name, *keys, *options)
        assert done.returncode == 0, done.stderr
        return done

    return add


def run_of(cli: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("runs", name, "--json").stdout)
    return found


def running(cli: Cli, folder: Path, name: str, runner: str) -> str:
    """Start the job on the runner; return its id."""
    assert cli("run", "job", "--name", name, "--runner", runner, "-d", cwd=folder).returncode == 0
    until(lambda: run_of(cli, name)["status"] == "running", f"{name} runs", 60)
    job: str = run_of(cli, name)["jobs"][0]["id"]
    return job


def ends_well(cli: Cli, docker: list[str], name: str, job: str) -> None:
    subprocess.run([*docker, "exec", f"dstack-{job}", "/bin/sh", "-c", ": > /workflow/go"], check=True)
    assert cli("wait", name).returncode == 0
    listed = json.loads(cli("artifacts", "list", name, "--json").stdout)
    assert [each["path"] for each in listed] == ["out"]


@pytest.fixture
def waits(tmp_path: Path, busybox: str) -> Path:
    return single(tmp_path / "p", busybox, UNTIL_GO, more="artifacts: [out]")


def test_two_accounts_share_what_the_machine_has(
    cli: Cli, add: Add, people: dict[str, Account], docker: list[str], tmp_path: Path, busybox: str
) -> None:
    add("ann", "ann")
    added = add("bob", "bob")
    cpus = json.loads(cli("runners", "--json").stdout)[0]["cpus"]
    folder = single(tmp_path / "p", busybox, UNTIL_GO, more=f"artifacts: [out]\nresources: {{cpu: {cpus}}}")

    job = running(cli, folder, "first", "bob")
    assert cli("run", "job", "--name", "second", "--runner", "ann", "-d", cwd=folder).returncode == 0
    until(lambda: run_of(cli, "second")["reason"], "it says why it waits", 30)
    second = run_of(cli, "second")
    table = cli("runners")
    assert cli("stop", "-y", "second").returncode in (0, 143)
    removed = cli("runners", "remove", "ann")

    assert "same machine  ann" in added.stdout
    assert "ann and bob are one machine: they share its CPUs, memory and GPUs" in table.stderr
    assert second["status"] == "queued"
    assert f"ann has 0 of {cpus} CPUs free" in second["reason"]
    assert (removed.returncode, removed.stderr) == (0, "ann: removed; nothing is left on the machine\n")
    assert not (people["ann"].home / ".dstack-host").exists()
    ends_well(cli, docker, "first", job)
    assert cli("runners", "remove", "bob").stderr == "bob: removed; nothing is left on the machine\n"
    assert not (people["bob"].home / ".dstack-host").exists()


def test_removing_one_of_two_names_leaves_the_others_jobs(
    cli: Cli, add: Add, people: dict[str, Account], docker: list[str], waits: Path
) -> None:
    add("box", "ann", "--authorize")
    add("twin", "ann")
    assert cli("run", "job", "--name", "before", "--runner", "twin", "-d", cwd=waits).returncode == 0
    until(lambda: run_of(cli, "before")["status"] == "running", "it runs", 60)
    busy = cli("runners", "remove", "twin")
    ends_well(cli, docker, "before", run_of(cli, "before")["jobs"][0]["id"])
    job = running(cli, waits, "first", "box")

    removed = cli("runners", "remove", "twin")

    assert (busy.returncode, "twin still runs job of before" in busy.stderr) == (2, True)
    assert (removed.returncode, removed.stderr) == (0, "twin: removed; its folder stays, because box uses it\n")
    assert "dstack-server-" in (people["ann"].home / ".ssh" / "authorized_keys").read_text()
    ends_well(cli, docker, "first", job)
    assert json.loads(cli("runners", "check", "box", "--json").stdout)["orphans"] == []
    assert cli("runners", "remove", "box").stderr == "box: removed; nothing is left on the machine\n"
    assert not (people["ann"].home / ".dstack-host").exists()
    assert not (people["ann"].home / ".ssh").exists()


def test_the_servers_own_machine_over_ssh_too(cli: Cli, add: Add, docker: list[str], waits: Path) -> None:
    add("box", "ann")
    local = cli("runners", "add", "local")
    job = running(cli, waits, "first", "box")

    removed = cli("runners", "remove", "local")

    assert "same machine  box" in local.stdout
    assert (removed.returncode, removed.stderr) == (0, "local: removed; nothing is left on the machine\n")
    ends_well(cli, docker, "first", job)
    assert cli("runners", "remove", "box").returncode == 0


def test_a_rename_in_an_inventory_is_a_rename(
    cli: Cli, add: Add, people: dict[str, Account], door: Sshd, docker: list[str], waits: Path, tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.ini"

    def named(name: str, host: str = door.host) -> None:
        variables = f"ansible_host={host} ansible_port={door.port} ansible_user={people['ann'].name}"
        keys = f"ansible_ssh_private_key_file={door.identity} dstack_fingerprint={door.fingerprint}"
        inventory.write_text(f"[gpu]\n{name} {variables} {keys}\n")

    named("old")
    assert cli("runners", "import", str(inventory)).returncode == 0
    job = running(cli, waits, "first", "old")
    named("new")
    planned = cli("runners", "import", str(inventory), "--dry-run")
    renamed = cli("runners", "import", str(inventory))
    named("newer", "localhost")
    elsewhere = cli("runners", "import", str(inventory))

    assert planned.stdout.startswith("new: rename from old, ")
    assert (renamed.returncode, renamed.stderr) == (0, "")
    assert renamed.stdout.startswith("new: renamed from old, ")
    assert elsewhere.stdout.startswith("newer: renamed from new, "), elsewhere.stderr
    assert [each["name"] for each in json.loads(cli("runners", "--json").stdout)] == ["newer"]
    ends_well(cli, docker, "first", job)
    assert run_of(cli, "first")["jobs"][0]["runner"] == "newer"
    assert cli("runners", "remove", "newer").stderr == "newer: removed; nothing is left on the machine\n"


def test_a_check_logs_in_anew(cli: Cli, add: Add, people: dict[str, Account], door: Sshd) -> None:
    """An open connection outlives sshd, and keeps the groups of its login."""
    add("box", "bob")

    def group(option: str) -> None:
        done = ["gpasswd", option, people["bob"].name, "docker"]
        subprocess.run(done, check=True, capture_output=True)

    door.close()
    stopped = cli("runners", "check")
    door.start()
    again = cli("runners", "check", "box")
    group("-d")
    revoked = cli("runners", "check", "box")
    shown = json.loads(cli("runners", "--json").stdout)[0]
    group("-a")
    mended = cli("runners", "check", "box")

    assert (stopped.returncode, "box: unreachable" in stopped.stderr) == (125, True)
    assert again.returncode == 0
    assert (revoked.returncode, "is not allowed to use Docker" in revoked.stderr) == (125, True)
    assert shown["state"] == "unusable"
    assert mended.returncode == 0, mended.stderr
    assert cli("runners", "remove", "box").returncode == 0
