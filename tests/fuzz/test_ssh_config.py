"""Whatever is in ~/.ssh/config, and whatever `ssh -G` prints: there are settings, or an error with the address."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from dstack.hosts.ssh import openssh
from dstack.hosts.ssh.settings import SshSettings, read_settings
from dstack.model.runner.runner import Address
from tests.fuzz import fuzz, outcome

OPTIONS = (
    *("hostname", "port", "user", "identityfile", "certificatefile", "proxycommand", "proxyjump", "hostkeyalias"),
    *("connecttimeout", "userknownhostsfile", "globalknownhostsfile", "stricthostkeychecking", "identityagent"),
    *("identitiesonly", "addressfamily", "bindaddress", "serveraliveinterval", "serveralivecountmax", "Host", "Match"),
    *("Include", "SetEnv", "Tag", "host"),
)
VALUES = (
    *(
        "x",
        "none",
        "",
        "22",
        "0",
        "-1",
        "65536",
        "9" * 19,
        "9" * 5000,
        "1e999",
        "nan",
        "any",
        "inet6",
        "yes",
        "no",
        "false",
    ),
    *(
        "~/.ssh/id",
        "%d/%h",
        "%%",
        "%",
        "%x",
        "$HOME/x",
        "${X",
        "/a b /c",
        "~nobody2/x",
        "a,b",
        "ssh -W %h:%p j",
        '"',
        "'",
    ),
    *("SSH_AUTH_SOCK", "$X", "\u202e", "\x1b[2J", "\udcff", "exec true", "all", "x y", "*", "!x", "/dev/null", "\0"),
)
texts = st.lists(st.sampled_from(VALUES) | st.text(max_size=6), max_size=2).map(" ".join)
lines = st.lists(st.tuples(st.sampled_from(OPTIONS) | st.text(max_size=5), texts).map(" ".join), max_size=6).map(
    "\n".join
)
ADDRESS = Address(host="x", user="u", port=22)
DEFAULTS = "hostname x\nport 22\nuser u\n"


def settings() -> SshSettings | None:
    return outcome(lambda: read_settings(ADDRESS), "u@x:22", size=10_000)


@fuzz
@given(st.tuples(st.sampled_from((DEFAULTS, "")), lines, st.sampled_from((DEFAULTS, ""))).map("\n".join))
def test_any_answer_of_ssh(printed: str) -> None:
    with mock.patch.object(openssh, "_printed", return_value=printed):
        found = settings()

    assert found is None or found.host


@fuzz
@given(lines)
def test_any_file(text: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / ".ssh"
        folder.mkdir(mode=0o700)
        (folder / "config").write_bytes(text.encode("utf-8", "surrogateescape"))
        with mock.patch.dict(os.environ, {"HOME": home}):
            settings()


@fuzz
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from((b"x ", b"@revoked ", b"ssh-ed25519 ", b"AAAA", b"\n", b"|1|", b"*"))).map(b"".join)
)
def test_any_known_hosts(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with mock.patch.object(openssh, "_printed", return_value=f"{DEFAULTS}userknownhostsfile {file.name}\n"):
            found = settings()
            assert found
            found.listed_keys()


@fuzz
@given(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: f"-----BEGIN {text}-----\n{text}".encode()))
def test_any_key_file(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with mock.patch.object(openssh, "_printed", return_value=f"{DEFAULTS}identityfile {file.name}\n"):
            found = settings()

    assert found
