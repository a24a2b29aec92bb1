"""Lets a server's own key in, as ssh-copy-id does; `leave` takes it out again."""

from __future__ import annotations

from dstack.commands.answer import values
from dstack.commands.command import Command, Result
from dstack.errors import HostError
from dstack.render import script

NAME = "letting the server's key in"


def marker(server: str) -> str:
    """The comment of a server's key in authorized_keys. A list of what was made there for it may follow."""
    return f"dstack-server-{server}"


def authorize(key: str, server: str) -> Command[None]:
    """Let the public key (type and base64) of the server in, with `restrict`. Follows no link. Repeatable."""
    return Command(NAME, script("authorize", None, key=key, marker=marker(server)), _done)


def _done(result: Result) -> None:
    if link := values(NAME, result).get("link"):
        raise HostError(
            f"{link} is a link, which is not followed; the server's key was not let in",
            hint="add the key to authorized_keys by hand, or make it a file",
        )
