"""Authorizes a server's own key, as ssh-copy-id does; `uninstall` revokes it."""

from __future__ import annotations

from dstack.commands.command import Command, Result
from dstack.errors import HostError
from dstack.render import script


def marker(server: str) -> str:
    """Return the comment of a server's key in authorized_keys. A list of files created for the key may follow it."""
    return f"dstack-server-{server}"


def authorize(key: str, server: str) -> Command[None]:
    """Authorize the server's public key (type and base64), with `restrict,pty`. Follows no links. Repeatable."""
    body = script("machine/authorize", None, key=key, marker=marker(server))
    return Command("authorizing the server's key", body, _authorized)


def _authorized(result: Result) -> None:
    if link := result.values().get("link"):
        raise HostError(
            f"{link} is a symbolic link; the server's key was not authorized",
            hint="replace the link with a file, or add the key to authorized_keys by hand",
        )
