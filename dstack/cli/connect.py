"""Finds the server to use: DSTACK_SERVER_URL, `dstack config --url`, or the embedded server."""

from __future__ import annotations

from dstack.cli.output import show
from dstack.client import embedded
from dstack.client.client import Client
from dstack.client.settings import configured


def warn(text: str) -> None:
    """Print a warning on stderr."""
    show.say(f"dstack: {text}", style="yellow")


def connect() -> Client:
    """Return a client of the server to use. Only the embedded server is started if it is not running."""
    home = embedded.home()
    endpoint = configured(home)
    return embedded.connect(home, warn) if endpoint is None else Client(endpoint, say=warn)


def quiet_client() -> Client | None:
    """Return a client that starts no server and prints nothing, or None if no server is running."""
    home = embedded.home()
    endpoint = configured(home)
    if endpoint is None and not embedded.answers(home):
        return None
    return Client(endpoint or embedded.endpoint(home))
