"""`dstack server install` and `uninstall`: the server starts with the machine, and again when it fails."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from dstack.cli.commands.server import unit
from dstack.cli.output import show
from dstack.client import embedded
from dstack.client.settings import user, using
from dstack.errors import DstackError, FileError, UsageError
from dstack.plumbing import disk

SECONDS = 30.0
"""How long the server may take to start, and systemctl to answer."""


def add_to(group: click.Group, start: click.Command, shut_down: Callable[[], None]) -> None:
    """Add the commands to `dstack server`, whose `start` says which options there are."""

    @group.command("install")
    @click.option("--print", "only_print", is_flag=True, help="Print the unit, and change nothing.")
    @click.argument("options", nargs=-1, metavar="[-- START_OPTION...]")
    def install(only_print: bool, options: tuple[str, ...]) -> None:
        """Start the server with the machine, as a systemd user unit.

        It gets DSTACK_HOME and PATH from this shell, and after `--` the options of `dstack server start`. Running it
        again updates the unit. Without systemd, it says what to put into crontab.
        """
        parent = click.get_current_context().parent
        start.make_context("start", list(options), parent)  # refuses what `start` would
        text = unit.unit(program("--foreground", *options), environment(), embedded.home())
        if only_print:
            show.line(text.rstrip("\n"))
            return
        require_systemd(options)
        put_in_place(text, shut_down)
        say_lingering()

    @group.command("uninstall")
    def uninstall() -> None:
        """Take the systemd user unit away, and stop its server. Runs continue, and the next server picks them up."""
        path = unit_path()
        if not path.exists():
            show.say("the server is not installed as a systemd user unit")
            return
        require_systemd(())
        systemctl("disable", "--now", path.name)
        with using(path.parent, FileError):
            path.unlink(missing_ok=True)
        systemctl("daemon-reload")
        show.say(f"removed {path}; the server has stopped, and runs continue")


def program(*options: str) -> list[str]:
    """Return the command line that starts the server, with this installation of dstack."""
    script = Path(sys.executable).with_name("dstack")
    own = [str(script)] if script.exists() else [sys.executable, "-m", "dstack.cli"]
    return [*own, "server", "start", *options]


def environment() -> dict[str, str]:
    """Return the variables that the server gets: dstack's home, made absolute, and where programs are."""
    found = {name: os.environ[name] for name in unit.CARRIED if os.environ.get(name)}
    return found | ({"DSTACK_HOME": str(embedded.home())} if "DSTACK_HOME" in found else {})


def unit_path() -> Path:
    """Return where the unit of this home is."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    return folder / unit.name(embedded.home(), Path.home() / ".dstack")


def put_in_place(text: str, shut_down: Callable[[], None]) -> None:
    """Write the unit, and have systemd run it. A server that runs already makes way."""
    path = unit_path()
    if path.exists() and path.read_text() == text and running(path.name):
        show.say(f"{path} is installed already, and its server is running")
        return
    with using(path.parent, FileError):
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write(path, text.encode())
    systemctl("daemon-reload")
    if running(path.name):
        systemctl("stop", path.name)
    if embedded.answers(embedded.home()):
        shut_down()
    systemctl("enable", path.name)
    systemctl("restart", path.name)
    wait_for_answer(path.name)
    show.say(f"installed {path}; the server is running")
    if lost := sorted(name for name in os.environ if name.startswith("AWS_")):
        hint = "put the credentials into ~/.aws, or type: systemctl --user edit"
        show.say(f"warning: the server doesn't get {', '.join(lost)} from this shell; {hint} {path.name}")


def wait_for_answer(name: str) -> None:
    """Wait until the server answers. Raises DstackError."""
    end = time.monotonic() + SECONDS
    while not embedded.answers(embedded.home()):
        if time.monotonic() > end:
            message = f"{name} is installed, but its server doesn't answer after {SECONDS:.0f} seconds"
            raise DstackError(message, hint=f"journalctl --user --unit {name}")
        time.sleep(0.1)


def require_systemd(options: Sequence[str]) -> None:
    """Raise UsageError, with the line for crontab, if systemd runs no units for this user."""
    try:
        asked = ["systemctl", "--user", "show-environment"]
        done = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=SECONDS)
        problem = done.stderr.strip() if done.returncode else None
    except FileNotFoundError:
        problem = "this machine has no systemctl"
    except subprocess.TimeoutExpired:
        problem = "systemctl doesn't answer"
    if problem is not None:
        line = unit.crontab(program(*options), environment())
        hint = f"(crontab -l; echo {shlex.quote(line)}) | crontab -"
        raise UsageError(
            f"systemd runs no units for {user()}: {problem}. To start the server by cron instead:", hint=hint
        )


def systemctl(*words: str) -> None:
    """Run systemctl for this user's units. Raises DstackError with what it says."""
    command = ["systemctl", "--user", *words]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=2 * SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DstackError(f"{shlex.join(command)}: {error}", hint="journalctl --user") from error
    if done.returncode:
        said = done.stderr.strip() or f"it ended with {done.returncode}"
        raise DstackError(f"{shlex.join(command)} failed: {said}", hint=f"journalctl --user --unit {words[-1]}")


def running(name: str) -> bool:
    """Whether systemd runs the unit."""
    return subprocess.run(["systemctl", "--user", "--quiet", "is-active", name], check=False).returncode == 0


def say_lingering() -> None:
    """Say which command keeps the server when the user logs out, unless that is so already."""
    try:
        asked = ["loginctl", "show-user", user(), "--property=Linger"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, check=False)
        lingers = done.stdout.strip() == "Linger=yes"  # it fails for a user who is not logged in and doesn't linger
    except (OSError, subprocess.TimeoutExpired):
        lingers = False
    if not lingers:
        command = f"loginctl enable-linger {shlex.quote(user())}"
        show.say(f"the server starts when you log in, and stops when you log out; to have it always: {command}")
