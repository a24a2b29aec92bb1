"""Asks ssh what its configuration says about a host. Nothing here parses a configuration: ssh -G is the only reader."""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dstack.errors import HostError
from dstack.model.runner.runner import Address

TIMEOUT = 30.0
"""Seconds, enough for the commands of `Match exec`."""
SYSTEM = Path("/etc/ssh/ssh_config")

_DEFAULTS = """\
hostname {address.host}
port {port}
user {user}
proxyjump {jump}
identityfile ~/.ssh/id_rsa
identityfile ~/.ssh/id_ecdsa
identityfile ~/.ssh/id_ed25519
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile ~/.ssh/known_hosts ~/.ssh/known_hosts2
"""
_STOCK = re.compile(
    r"\s*(#.*|host \*|include /etc/ssh/ssh_config\.d/\*\.conf|(sendenv|hashknownhosts|gssapi\w+|forwardx11\w*)\s.*)?",
    re.IGNORECASE,
)
"""A line of the file that distributions install: it says nothing about where a machine is or how to log in."""
_ASKED = ("C", "j")
"""Tokens that only ssh can expand: a hash that depends on its version, and one that older versions don't know."""
_REFERENCE = re.compile(r"%(.?)|\$\{([^}]*)\}")


def read_options(address: Address) -> dict[str, list[str]]:
    """Return the options for this address, by lower-case name; `none` is an empty list. Blocks.

    The values are those of `ssh -G`, with the tokens that it leaves for later (TOKENS in ssh_config(5)) expanded.
    Raises ValueError if ssh rejects its configuration or prints no host and port, and HostError if there is one and ssh
    can't be run.
    """
    options: dict[str, list[str]] = {}
    for line in _printed(address).splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).extend([value] if value != "none" or name in ("hostname", "user") else [])
    tokens = _tokens(address, options)
    for name in ("identityfile", "certificatefile"):
        options[name] = [_expanded(value, tokens, address) for value in options.get(name, ())]
    known = {token: tokens[token] for token in "%hknpr"}
    options["proxycommand"] = [_expanded(value, known) for value in options.get("proxycommand", ())]
    return options


def _printed(address: Address, *more: str) -> str:
    account = _account()
    if account is None or shutil.which("ssh") is None:
        _refuse_unread(address, account)
        jump, user = address.jump or "none", address.user or getpass.getuser()
        return _DEFAULTS.format(address=address, port=address.port or 22, user=user, jump=jump)
    with _files(account.pw_dir) as files:
        try:
            done = subprocess.run(
                ["ssh", "-G", "-T", *files, *more, *_flags(address)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                check=False,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"`ssh -G {address.host}` took longer than {TIMEOUT:g} seconds") from error
    if done.returncode != 0:
        raise ValueError(" ".join(done.stderr.split()))
    known = f"{account.pw_dir}/.ssh/known_hosts"
    return done.stdout.replace(f" {known} {known}2\n", " ~/.ssh/known_hosts ~/.ssh/known_hosts2\n")


def _flags(address: Address) -> list[str]:
    port, user, jump = address.port, address.user, address.jump
    hops = ",".join(hop.strip() for hop in jump.split(",")) if jump else ""
    given = (("-p", port), ("-l", user), ("-o", hops and f"ProxyJump={hops}"))
    return [*(str(word) for flag, value in given if value for word in (flag, value)), "--", str(address.host)]


@contextmanager
def _files(home: str) -> Iterator[list[str]]:
    """Yield the arguments that make ssh read the files below $HOME, which it ignores, and then the machine's."""
    config, machine = _config(), _machine_files()
    if Path(home).resolve() == Path.home().resolve():
        yield []
        return
    if not machine:
        yield ["-F", str(config) if config.exists() else "none"]
        return
    with tempfile.NamedTemporaryFile("w", prefix="dstack-", suffix=".ssh_config", errors="surrogateescape") as file:
        for path in (config, SYSTEM):
            quoted = glob.escape(str(path)).replace("\\", "\\\\").replace('"', '\\"')
            file.write(f'Include "{quoted}"\n')
        file.flush()
        yield ["-F", file.name]


def _refuse_unread(address: Address, account: pwd.struct_passwd | None) -> None:
    """Raise HostError if there is a configuration: without ssh, nobody can say what it means."""
    found = [str(path) for path in (_config(), *_machine_files()) if path.exists()]
    if not found:
        return
    why = "ssh is not installed" if account else f"ssh refuses to run for uid {os.getuid()}, which has no account"
    line = f"dstack:x:{os.getuid()}:{os.getgid()}::{Path.home()}:/bin/sh"
    fix = "sudo apt-get install openssh-client" if account else f"echo '{line}' | sudo tee -a /etc/passwd"
    raise HostError(f"{address}: {why}, and only ssh can read {' and '.join(found)}", hint=fix)


def _machine_files() -> list[Path]:
    """Return the machine's own files, unless they say what a distribution's do."""
    return [path for path in (SYSTEM, *SYSTEM.parent.glob("ssh_config.d/*.conf")) if not _is_stock(path)]


def _is_stock(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return all(_STOCK.fullmatch(line) for line in path.read_text(errors="replace").splitlines())
    return True


def _config() -> Path:
    return Path("~/.ssh/config").expanduser()


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:
        return None


def _tokens(address: Address, options: dict[str, list[str]]) -> dict[str, str]:
    host, port, user = (next(iter(options.get(name, ())), "") for name in ("hostname", "port", "user"))
    if not host or not re.fullmatch("[0-9]{1,5}", port):
        raise ValueError(f"`ssh -G {address.host}` did not print a host name and a port")
    machine, account = socket.gethostname(), _account()
    return {
        "%": "%",
        "d": str(Path.home()),
        "h": host,
        "i": str(os.getuid()),
        "k": next(iter(options.get("hostkeyalias", ())), str(address.host)),
        "L": machine.partition(".")[0],
        "l": machine,
        "n": str(address.host),
        "p": port,
        "r": user,
        "u": account.pw_name if account else getpass.getuser(),
    }


def _expanded(text: str, tokens: dict[str, str], address: Address | None = None) -> str:
    """Replace the tokens. With an address, also replace `${NAME}` and the tokens that ssh must be asked for. Raises
    ValueError for one that has no value, as ssh does."""

    def value(match: re.Match[str]) -> str:
        token, variable = match.groups()
        if variable is not None:
            return _variable(variable, text) if address else match[0]
        if address and token in _ASKED:
            with suppress(ValueError):
                shown = _printed(address, "-o", f"ControlPath=/%{token}")
                tokens[token] = re.findall("^controlpath /(.*)", shown, re.MULTILINE)[0]
        if token not in tokens:
            raise ValueError(f"{text} has %{token}, a token that ssh does not know; write %% for a percent sign")
        return tokens[token]

    return _REFERENCE.sub(value, text)


def _variable(name: str, text: str) -> str:
    if name not in os.environ:
        raise ValueError(f"{text} has the variable {name}, which is not set in dstack's environment")
    return os.environ[name]
