"""The systemd user unit and the line for crontab that start the server with the machine, as text."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dstack.errors import UsageError

CARRIED = ("DSTACK_HOME", "PATH")
"""The variables that the server gets from whoever installs it."""

SHELL = ("/bin/sh", "-c", 'exec "$0" "$@"')
"""Starts the program whose path follows: systemd itself accepts no quote and no escaped dollar in that."""


def name(home: Path, default: Path) -> str:
    """Return the name of the unit for a home: each home has its own server."""
    if home == default:
        return "dstack.service"
    return f"dstack-{hashlib.sha256(os.fsencode(home)).hexdigest()[:8]}.service"


def unit(program: Sequence[str], environment: Mapping[str, str], home: Path) -> str:
    """Return the unit's text. Raises UsageError for what can't be written into one."""
    variables = "".join(f"Environment={quoted(f'{name}={value}')}\n" for name, value in environment.items())
    words = " ".join(quoted(word).replace("$", "$$") for word in (*SHELL, *program))
    return f"""\
# Written by `dstack server install`, which replaces it; to change it: systemctl --user edit {name_in(home)}
[Unit]
Description=dstack server of {printable(str(home))}

[Service]
Type=exec
{variables}ExecStart={words}
Restart=on-failure
RestartSec=5
KillMode=mixed

[Install]
WantedBy=default.target
"""


def name_in(home: Path) -> str:
    """The name of the unit, for the comment in it."""
    return name(home, Path.home() / ".dstack")


def quoted(text: str) -> str:
    """Quote a word of a unit (systemd.syntax(7)): specifiers and escapes mean themselves."""
    refuse_control(text)
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


def printable(text: str) -> str:
    """Return a text for a description, where only specifiers and the end of a line mean anything."""
    refuse_control(text)
    return text.replace("%", "%%").rstrip("\\")


def crontab(program: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the line for crontab(5), where a bare % ends the command."""
    for text in (*program, *environment.values()):
        refuse_control(text)
    variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return "@reboot " + " ".join([*variables, shlex.join(program)]).replace("%", "\\%")


def refuse_control(text: str) -> None:
    """Raise UsageError for a text with a newline or another control character: no file format here can hold it."""
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise UsageError(f"{text!r} has a control character, or is not UTF-8: systemd and cron can't be given it")
