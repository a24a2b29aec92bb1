"""Machines whose users have any login shell, behind one and two jump hosts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.e2e.project import project
from tests.environment import account, needs
from tests.environment.product import Home
from tests.environment.sshd import Sshd

HOSTILE = {
    "dash": (".profile", "echo a profile; sleep 0.2\n"),
    "bash": (".bashrc", "echo welcome; echo an error >&2; alias git=false; set -u; sleep 0.2\n"),
    "zsh": (".zshenv", "print -n 'no newline'; setopt nomatch; alias -g docker=false; sleep 0.2\n"),
    "fish": (".config/fish/config.fish", "echo hello; function git; false; end; sleep 0.2\n"),
    "tcsh": (".tcshrc", "echo hello; set prompt = '> '; set noglob; sleep 0.2\n"),
}
"""Login shells, and start-up files that print, wait, and change what words mean."""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dss-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def users(folder: Path, docker: list[str]) -> Iterator[dict[str, account.Account]]:
    """One user per shell, with empty homes."""
    made: dict[str, account.Account] = {}
    try:
        for shell, (name, text) in HOSTILE.items():
            path = shutil.which(shell)
            if path is None:
                needs.missing(f"{shell} is not installed; install it: apt-get install {shell}")
            name_of_user = f"dstack-h-{shell}-{os.getpid()}"
            made[shell] = account.create(name_of_user, folder / shell, account.docker_group(), path)
            file = made[shell].home / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        yield made
    finally:
        for user in made.values():
            account.remove(user)


@pytest.fixture
def servers(folder: Path, users: dict[str, account.Account]) -> Iterator[list[Sshd]]:
    """Two jump hosts and the machine behind them, which prints a banner."""
    (folder / "banner").write_text("*** no trespassing ***\n")
    behind = Sshd(folder / "behind", f"dstack-h-*-{os.getpid()}", [f"Banner {folder}/banner"])
    made = [Sshd(folder / "near", users["bash"].name), Sshd(folder / "far", users["fish"].name), behind]
    try:
        for server in made:
            server.start()
        yield made
    finally:
        for server in made:
            server.close()


def configure(home: Path, servers: list[Sshd]) -> None:
    """Write ~/.ssh with the aliases `near` and `far`, and all host keys."""
    ssh = home / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "known_hosts").write_text("".join(f"[{each.host}]:{each.port} {each.host_key}\n" for each in servers))
    (ssh / "config").write_text(
        "".join(
            f"Host {name}\n  HostName {gate.host}\n  Port {gate.port}\n  User {gate.user}\n"
            f"  IdentityFile {gate.identity}\n"
            for name, gate in zip(("near", "far"), servers, strict=False)
        )
    )


def test_any_shell_behind_one_and_two_jump_hosts(
    cli: Cli, servers: list[Sshd], users: dict[str, account.Account], dstack_home: Home, busybox: str, tmp_path: Path
) -> None:
    near, far, behind = servers
    configure(dstack_home.path, servers)
    inventory = tmp_path / "hosts.ini"
    gate = f"ssh -i {near.identity} -o BatchMode=yes -p {near.port} -W %h:%p {near.user}@{near.host}"
    ways = ("-J near,far", f'-o ProxyCommand="{gate}" -o ForwardX11=no')
    hosts = [
        f"{shell} ansible_user={user.name} ansible_ssh_common_args='{ways[number % 2]}'"
        for number, (shell, user) in enumerate(users.items())
    ]
    hosts.append("later ansible_user={{someone}}")
    common = f"ansible_host={behind.host}\nansible_port={behind.port}\nansible_ssh_private_key_file={behind.identity}"
    inventory.write_text("\n".join([*hosts, "[all:vars]", common, ""]))
    workflows = "workflows:\n"
    for shell in users:
        said = f"commands: ['echo I am {shell}'], runners: [{shell}]"
        workflows += f"  - {{name: {shell}, image: '{busybox}', {said}}}\n"
    needed = f"depends-on: {{workflows: [{', '.join(users)}]}}"
    workflows += f"  - {{name: all, image: '{busybox}', commands: ['true'], {needed}}}\n"

    imported = cli("runners", "import", inventory)
    ran = cli("run", "all", cwd=project(tmp_path / "p", workflows))
    removed = cli("runners", "remove", *users)

    assert imported.returncode == 125, imported.stderr
    assert "later: skipped: ansible_user is the template '{{someone}}', which dstack can't expand" in imported.stderr
    assert ran.returncode == 0, ran.stderr
    assert sorted(line.partition("| ")[2] for line in ran.stdout.splitlines()) == sorted(f"I am {s}" for s in users)
    assert [gate.log.count("Accepted publickey") for gate in (near, far)] == [2, 1]  # as itself, and on the way to far
    assert removed.returncode == 0, removed.stderr
    for shell, user in users.items():
        assert [path.name for path in user.home.iterdir() if "dstack" in path.name] == [], shell
