"""Runs a command in a job's container, or connects to one of its ports, while the job runs."""

from __future__ import annotations

from dstack.commands.command import Command, done
from dstack.model.job.execution import NO_PROGRAM, ContainerCommand
from dstack.model.runner.host_context import HostContext
from dstack.render import script, text

SHELL = ("/bin/sh", "-c", "if command -v bash > /dev/null 2>&1; then exec bash; fi; exec sh")
"""What runs if no command is given."""
DETACH_KEYS = "ctrl-@,ctrl-^,ctrl-@,ctrl-^"
"""Docker would hold back a Ctrl-P until the next key, to see whether Ctrl-Q follows."""


def enter(context: HostContext, attempt: str, entry: ContainerCommand) -> Command[None]:
    """Run the command, with stdin and stdout, after a line that tells the container's state."""
    environment = {**entry.environment, "DSTACK_EXEC": entry.id}
    options = ["--workdir", entry.folder]
    if entry.term is not None:
        options += ["--tty", "--detach-keys", DETACH_KEYS]
        environment["TERM"] = entry.term
    options += [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    command = entry.command or SHELL
    values = {"entry": entry.id, "options": tuple(options), "command": command}
    return Command("running a command in the container", script("job/enter", context, attempt, **values), done)


def connect(context: HostContext, attempt: str, port: int, entry: str) -> Command[None]:
    """Connect stdin and stdout with a port of the container, after a line that tells the container's state."""
    values = {"port": port, "entry": entry, "relay": text("job/relay"), "no_program": NO_PROGRAM}
    return Command("connecting to the container", script("job/connect", context, attempt, **values), done)


def leave(context: HostContext, attempt: str, entry: str) -> Command[None]:
    """End what is left in the container of a command whose connection has ended. May be repeated."""
    return Command("ending the command", script("job/leave", context, attempt, entry=entry), done)
