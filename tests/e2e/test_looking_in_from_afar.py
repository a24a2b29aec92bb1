"""From a second network: a terminal and ports, through a team's server with TLS, a restricted key and a jump host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import project
from tests.e2e.test_ports import ECHO, Follower
from tests.environment import account, needs
from tests.environment.certificates import Authority
from tests.environment.product import ROOT, Home, program
from tests.environment.sshd import Sshd, free_port
from tests.environment.waiting import until
from tests.unit.cli.terminal import type_into

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
HERE, THERE = "10.213.7.1", "10.213.7.2"


@pytest.fixture
def network() -> Iterator[list[str]]:
    """What runs a command on another machine, as far as its network goes: it reaches only HERE."""
    needs.root("A second network")
    name = f"dstack-{os.getpid()}"
    ours, theirs = f"da{os.getpid()}", f"db{os.getpid()}"

    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"

    def ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True, env={"PATH": path})

    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", f"{HERE}/24", "dev", ours)
        ip("link", "set", ours, "up")
        inside = ["netns", "exec", name, "ip"]
        ip(*inside, "addr", "add", f"{THERE}/24", "dev", theirs)
        for each in (theirs, "lo"):
            ip(*inside, "link", "set", each, "up")
        yield [shutil.which("ip", path=path) or "ip", "netns", "exec", name]
    finally:
        ip("link", "delete", ours, check=False)
        ip("netns", "delete", name)


@pytest.fixture
def sshd(session_folder: Path, user: account.Account, docker: list[str]) -> Iterator[Sshd]:
    """An sshd that accepts its own keys and those in the user's home."""
    server = Sshd(session_folder / "afar", user.name)
    server.first = (f"AuthorizedKeysFile {server.folder}/authorized_keys .ssh/authorized_keys",)
    server.start()
    try:
        yield server
    finally:
        server.close()


def test_from_a_second_network(
    cli: Cli,
    dstack_home: Home,
    sshd: Sshd,
    user: account.Account,
    network: list[str],
    python_image: str,
    tmp_path: Path,
) -> None:
    # given a server with TLS, whose own key is let in, and a machine behind a jump host
    authority, port = Authority(tmp_path), free_port()
    certificate, key = authority.issue(HERE)
    ssh = dstack_home.path / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "known_hosts").write_text(f"[{sshd.host}]:{sshd.port} {sshd.host_key}\n")
    (ssh / "config").write_text(
        f"Host gate\n  HostName {sshd.host}\n  Port {sshd.port}\n  User {sshd.user}\n  IdentityFile {sshd.identity}\n"
    )
    tls = ("--tls-cert", certificate, "--tls-key", key)
    served = cli("server", "start", "--host", HERE, "--port", str(port), *tls, env={"DSTACK_TOKEN": "t"})
    assert served.returncode == 0, served.stderr
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    identity = ("--identity", str(sshd.identity), "--fingerprint", sshd.fingerprint)
    added = cli("runners", "add", address, "--name", "far", "--jump", "gate", "--authorize", *identity)
    assert added.returncode == 0, added.stderr
    folder = project(
        tmp_path / "p",
        textwrap.dedent(f"""
        workflows:
          - name: page
            image: {python_image}
            commands: ['echo page > index.html; python3 -m http.server 8888 --bind 127.0.0.1 & python3 echo.py']
            ports: [8888, 9000]
        """),
    )
    (folder / "echo.py").write_text(ECHO)
    afar = {"DSTACK_SERVER_URL": f"https://{HERE}:{port}", "DSTACK_TOKEN": "t", "DSTACK_TLS_CA": str(authority.file)}
    dstack_home.environment |= {**afar, "PYTHONPATH": ROOT}

    def away(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        known = {"cwd": folder, "env": dstack_home.environment}
        return subprocess.run([*network, *words], input=data, capture_output=True, timeout=120, check=False, **known)  # type: ignore[call-overload,no-any-return]

    # when it is followed from afar
    run = Follower(dstack_home, folder, "run", "page", "--name", "far-page", before=network)
    try:
        web, echo = run.port(8888), run.port(9000)
        get = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{web}/').read().decode(), end='')"
        talk = f"from tests.e2e.test_ports import web_socket as w; print(w({echo}, ['one', 'two']))"

        # then pages and WebSockets come through
        until(lambda: away(sys.executable, "-c", get).stdout == b"page\n", "the page is there", 120)
        until(lambda: away(sys.executable, "-c", talk).stdout == b"['one', 'two']\n", "the echo answers", 60)

        # and commands in pipes and at a terminal, although the server's key is restricted
        assert "restrict,pty ssh-" in (user.home / ".ssh" / "authorized_keys").read_text()
        data = os.urandom(1 << 20)
        piped = away(str(program()), "exec", "far-page", "--", "cat", data=data)
        assert (piped.returncode, piped.stdout == data) == (0, True), piped.stderr
        words = [*network, str(program()), "exec", "far-page"]
        steps = (("#", "stty size; pwd\n"), ("24 80", "exit 5\n"))
        shown, code = type_into(words, steps, cwd=folder, environment=dstack_home.environment)
        assert (code, "/workflow" in shown) == (5, True)

        # and a member's token is refused another person's run
        member = cli("server", "token", "create", "bob").stdout.strip()
        dstack_home.environment["DSTACK_TOKEN"] = member
        refused = away(str(program()), "exec", "far-page", "--", "ls")
        assert (refused.returncode, b"only an admin may" in refused.stderr) == (2, True), refused.stderr
    finally:
        dstack_home.environment["DSTACK_TOKEN"] = "t"
        run.close()
    assert json.loads(cli("runs", "far-page", "--json", env={"DSTACK_SERVER_URL": ""}).stdout)["status"] == "running"
    assert cli("stop", "--all", "--abort", "-y", env={"DSTACK_SERVER_URL": ""}).returncode == 0
