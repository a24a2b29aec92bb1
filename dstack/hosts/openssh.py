"""What OpenSSH makes of a configuration that asyncssh's parser does not read as ssh does.

ssh takes a comment behind a value, `=` and %h in the command of `Match exec`, and `ProxyCommand=nc` without spaces. For
such a file `ssh -G` says what counts for one host, and asyncssh reads that.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh

from dstack.model.runner import Address

Options = asyncssh.SSHClientConnectionOptions

TIMEOUT = 30.0
"""Seconds for what `Match exec` may run."""
ODD = re.compile(r"^\s*(match\b.*\bexec\b.*[%=]|proxycommand\s*=)", re.IGNORECASE | re.MULTILINE)
"""Lines that asyncssh reads without an error, but not as ssh does."""
_ONE_VALUE = {
    *(
        "addressfamily",
        "bindaddress",
        "certificatefile",
        "connecttimeout",
        "hostkeyalias",
        "hostname",
        "identitiesonly",
    ),
    *("identityagent", "identityfile", "port", "serveralivecountmax", "serveraliveinterval", "user"),
}
_AS_IT_IS = {"globalknownhostsfile", "proxycommand", "proxyjump", "userknownhostsfile"}


class Flat:
    """A configuration for one host alone, in a file that goes with this object."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._file = tempfile.NamedTemporaryFile("w", prefix="dstack-ssh-")  # noqa: SIM115
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()

    @property
    def path(self) -> str:
        """Where it is."""
        return self._file.name


def read_options(
    address: Address, arguments: dict[str, Any]
) -> tuple[asyncssh.SSHClientConnectionOptions, Flat | None]:
    """What the user's configuration says for an address that is given by asyncssh's arguments, and the file to use in
    its place, if there has to be one. Blocks. Raises asyncssh.ConfigParseError where ssh can't read it either."""
    path = Path("~/.ssh/config").expanduser()
    try:
        options = Options(**arguments, config=(), client_keys=None)
        flat = flatten(path, address) if path.exists() and ODD.search(path.read_text(errors="replace")) else None
    except asyncssh.ConfigParseError:
        flat = flatten(path, address)
        if flat is None:
            raise
    if flat is None:
        return options, None
    return Options(**arguments, config=[flat.path], client_keys=None), flat


def flatten(path: Path, address: Address) -> Flat | None:
    """What ssh takes from the file for this address; None where ssh is not there, or refuses the file."""
    found, defaults = _asked(str(path), address), _asked("none", address)
    if found is None or defaults is None:
        return None
    keys = [line for line in found if line.startswith("identityfile ")]
    usual = keys == [line for line in defaults if line.startswith("identityfile ")]
    said = [line for line in found if (line in keys and not usual) or line not in defaults]
    return Flat([line for line in map(_line, said) if line])


def _asked(config: str, address: Address) -> list[str] | None:
    options = [*(("-p", str(address.port)) if address.port else ()), *(("-l", address.user) if address.user else ())]
    try:
        done = subprocess.run(
            ["ssh", "-G", "-F", config, *options, "--", str(address.host)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def _line(said: str) -> str | None:
    """A line of `ssh -G` as asyncssh reads it."""
    key, _, value = said.partition(" ")
    if value == "none" or key not in _ONE_VALUE | _AS_IT_IS:
        return None
    return f"{key} {value if key in _AS_IT_IS else shlex.quote(value)}"
