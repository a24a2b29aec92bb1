"""What ssh reads from its configuration, dstack reads, too: the same cases, asked of both."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dstack.commands.command import Command
from dstack.hosts.ssh.host import SshHost
from dstack.model.runner.runner import Address
from tests.environment import needs
from tests.environment.private import possible, private
from tests.unit.hosts.configurations import cases
from tests.unit.hosts.conftest import play
from tests.unit.hosts.servers import Server

ROOT = Path(__file__).parents[3]
OWN_HOME = """
mkdir -m 700 /run/home
sed -i 's#^root:\\([^:]*:[^:]*:[^:]*:[^:]*\\):[^:]*:#root:\\1:/run/home:#' /etc/passwd
HOME=/run/home exec "$@"
"""
"""ssh looks into the home that the account has, and ignores $HOME."""


def read_by_both(which: str) -> dict[str, tuple[Any, Any]]:
    if not possible():
        needs.root("/etc/ssh/ssh_config of its own")
    program = [sys.executable, "-m", "tests.unit.hosts.configurations", which]
    done = subprocess.run(
        private(["sh", "-ec", OWN_HOME, "sh", *program]), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[Any, Any]] = json.loads(done.stdout)
    return found


def test_a_sample_is_read_as_ssh_reads_it() -> None:
    compare(read_by_both("sample"))


@pytest.mark.long
def test_all_are_read_as_ssh_reads_them() -> None:
    found = read_by_both("all")

    assert len(found) == len(list(cases())) >= 150
    compare(found)


def compare(found: dict[str, tuple[Any, Any]]) -> None:
    refused = {name: words for name, (ssh, words) in found.items() if ssh == "refused"}
    assert {name: ssh for name, (ssh, _) in found.items() if name not in refused} == {
        name: dstack for name, (_, dstack) in found.items() if name not in refused
    }
    for words in refused.values():
        assert isinstance(words, str), words
        assert "lab: SSH can't be set up: " in words, words
        assert "terminal" not in words


# --- real logins


LOGINS = {
    "backslash": "Host lab\n  User LAB\\ann\n",
    "quotes": 'Host lab\n  User "ann@lab.example"\n',
    "capitals": "HOST lab\n  USER=ann\n",
    "first-file": "Include {folder}/conf.d/*.conf\n",
    "token": "Host lab\n  User ann\n  IdentityFile {folder}/%n-%k-%r\n",
    "bytes": "# caf\udce9\nHost lab\n  User ann # \udcff\n",
    "final": "Match final host 127.0.0.1\n  User last\nHost lab\n  BindAddress 127.0.0.1\n",
    "alias": "Host lab\n  HostKeyAlias nick\n  User ann\n  IdentityFile {folder}/%k\n",
    "library": "Host lab\n  PKCS11Provider /nowhere/lib.so\n  User ann\n",
    "jump": "Host lab\n  ProxyJump gate\n  ProxyCommand false\n  User ann\n",
    "command": "Host lab\n  ProxyCommand ssh -F {folder}/config -W '%h:%p' gate\n  ProxyJump nowhere\n  User ann\n",
    "off": "Host lab\n  User ann\nMatch originalhost lab\n  ProxyJump none\nHost *\n  ProxyJump gate\n",
}
COMMON = """
Host gate
  HostName 127.0.0.1
  Port {gate.port}
  User hop
Host lab
  HostName 127.0.0.1
  Port {box.port}
Host *
  IdentityFile {box.identity}
  UserKnownHostsFile {folder}/known_hosts
  IdentityAgent none
  BatchMode yes
"""


@pytest.mark.parametrize("name", LOGINS)
def test_both_log_in_at_the_same_place_as_the_same_user(name: str, home: Path) -> None:
    folder = home / ".ssh"
    folder.mkdir()

    async def scene() -> None:
        gate, box = Server(folder), Server(folder)
        gate.forwards = True
        async with gate.listening(), box.listening():
            write(folder, LOGINS[name] + COMMON, gate, box)
            by_ssh = await asyncio.create_subprocess_exec("ssh", "-F", folder / "config", "lab", "true")
            assert await by_ssh.wait() == 0
            seen = place(gate, box)
            host = SshHost(Address(host="lab"), box.host_key, name="box")
            await host.run(Command("test", "true", lambda result: result))
            await host.close()
            assert place(gate, box) == seen

    play(scene)


def write(folder: Path, text: str, gate: Server, box: Server) -> None:
    """Write the configuration, two files that it may include, and copies of the key with the names that tokens give."""
    files = {
        "config": text.format(folder=folder, gate=gate, box=box),
        "conf.d/b.conf": "Host lab\n  User second\n",
        "conf.d/B.conf": "Host lab\n  User first\n",
        "known_hosts": f"[127.0.0.1]:{gate.port} {gate.host_key}\n[127.0.0.1]:{box.port},nick {box.host_key}\n"
        f"[nick]:{box.port} {box.host_key}\n",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, errors="surrogateescape")
    for name in ("lab-lab-ann", "nick"):
        shutil.copy(box.identity, folder / name)


def place(gate: Server, box: Server) -> tuple[set[str], set[str], set[tuple[str, int]]]:
    """Who logged in where, and to where the gate forwarded; forgets it."""
    seen = set(gate.logins), set(box.logins), set(gate.forwarded)
    for each in (gate.logins, box.logins, gate.forwarded):
        each.clear()
    return seen
