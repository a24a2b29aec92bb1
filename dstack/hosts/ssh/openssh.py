"""Asks ssh what its configuration says about a host."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import socket
import subprocess
from pathlib import Path

from dstack.model.runner.runner import Address

TIMEOUT = 30.0
"""Seconds, enough for the commands of `Match exec`."""

_DEFAULTS = """\
hostname {address.host}
port {port}
user {user}
identityfile ~/.ssh/id_rsa
identityfile ~/.ssh/id_ecdsa
identityfile ~/.ssh/id_ed25519
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile ~/.ssh/known_hosts ~/.ssh/known_hosts2
"""


def read_options(address: Address) -> dict[str, list[str]]:
    """Return the options for this address, by lower-case name; `none` is an empty list. Blocks.

    The values are those of `ssh -G`, with the tokens that it leaves for later (TOKENS in ssh_config(5)) expanded.
    Raises ValueError if ssh rejects its configuration or prints no host and port, or if there is a configuration and
    ssh is not installed.
    """
    options: dict[str, list[str]] = {}
    for line in _printed(address).splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name, []).extend([value] if value != "none" or name in ("hostname", "user") else [])
    tokens = _tokens(address, options)
    for name in ("identityfile", "certificatefile", "proxycommand"):
        options[name] = [re.sub("%(.)", lambda m: tokens.get(m[1], m[0]), value) for value in options.get(name, ())]
    return options


def _printed(address: Address) -> str:
    config = Path("~/.ssh/config").expanduser()
    port, user = address.port, address.user
    flags = [*(("-p", str(port)) if port else ()), *(("-l", user) if user else ()), "--", str(address.host)]
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
        if Path(home).resolve() != Path.home().resolve():  # ssh ignores $HOME
            flags = ["-F", str(config) if config.exists() else "none", *flags]
        done = subprocess.run(
            ["ssh", "-G", *flags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=TIMEOUT,
        )
    except (FileNotFoundError, KeyError) as error:  # KeyError: a user without an account, whom ssh refuses
        if config.exists():
            raise ValueError(f"~/.ssh/config can't be read without ssh: {error}; install the OpenSSH client") from error
        return _DEFAULTS.format(address=address, port=port or 22, user=user or getpass.getuser())
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"`ssh -G {address.host}` took longer than {TIMEOUT:g} seconds") from error
    if done.returncode != 0:
        raise ValueError(" ".join(done.stderr.split()))
    known = f"{home}/.ssh/known_hosts"
    return done.stdout.replace(f" {known} {known}2\n", " ~/.ssh/known_hosts ~/.ssh/known_hosts2\n")


def _tokens(address: Address, options: dict[str, list[str]]) -> dict[str, str]:
    host, port, user = (next(iter(options.get(name, ())), "") for name in ("hostname", "port", "user"))
    if not host or not re.fullmatch("[0-9]{1,5}", port):
        raise ValueError(f"`ssh -G {address.host}` did not print a host name and a port")
    machine = socket.gethostname()
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
        "u": getpass.getuser(),
    }
