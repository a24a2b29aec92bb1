"""`dstack config`: which server, and where it stores artifacts."""

from __future__ import annotations

import os
import sys

import click

from dstack.cli import settings, show
from dstack.errors import TryAgainError, UsageError
from dstack.model.api.server import ServerConfig
from dstack.server import embedded
from dstack.server.endpoint import Endpoint


@click.command("config")
@click.option("--url", metavar="URL", help="The server to use, http://HOST:PORT; '' for your own on this machine.")
@click.option("--token", metavar="TOKEN", help="What that server asks for; '-' reads it from stdin.")
@click.option("--storage", metavar="URL", help="Where the server stores artifacts: a folder, or s3://bucket/prefix.")
@click.option("--endpoint-url", metavar="URL", help="With --storage s3://...: the endpoint, if it is not AWS's.")
@click.option("--max-gpus-per-user", metavar="N", help="How many GPUs one user's jobs may hold at once; '' for any.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    url: str | None,
    token: str | None,
    storage: str | None,
    endpoint_url: str | None,
    max_gpus_per_user: str | None,
    as_json: bool,
) -> None:
    """Show the settings, or change those that are given."""
    home = embedded.home()
    if url is not None or token is not None:
        _change(url, token)
    if storage is not None:
        _check_storage(storage)
        settings.connect().configure(ServerConfig(storage=storage, endpoint_url=endpoint_url or None))
    elif endpoint_url is not None:
        raise UsageError(
            "--endpoint-url goes with --storage", hint="dstack config --storage s3://... --endpoint-url URL"
        )
    if max_gpus_per_user is not None:
        settings.connect().configure(ServerConfig(max_gpus_per_user=_limit(max_gpus_per_user)))
    server = _server()
    known = settings.configured(home)
    shown = {
        "home": str(home),
        "url": known.url if known else None,
        "token": bool(known and known.token),
        "storage": server.storage if server else None,
        "endpoint_url": server.endpoint_url if server else None,
        "max_gpus_per_user": server.max_gpus_per_user if server else None,
    }
    if as_json:
        show.document(shown)
        return
    show.fields(
        [
            ("home", str(home)),
            ("server", known.url if known else f"your own on this machine, {embedded.socket_path(home)}"),
            ("token", "set" if shown["token"] else None),
            ("storage", str(shown["storage"] or "unknown: the server is out of reach")),
            ("endpoint", server.endpoint_url if server else None),
            ("GPUs a user", str(server.max_gpus_per_user) if server and server.max_gpus_per_user is not None else None),
        ]
    )


def _change(url: str | None, token: str | None) -> None:
    home = embedded.home()
    saved = settings.load(home)
    if url is not None:
        saved.url = Endpoint.parse(url).url if url else None
        if token is None and not url:
            saved.token = None
    if token is not None:
        saved.token = (sys.stdin.readline().strip() if token == "-" else token) or None
    settings.save(home, saved)
    if url is not None and os.environ.get("DSTACK_SERVER_URL"):
        settings.warn("warning: DSTACK_SERVER_URL is set, and wins over what was saved now")


def _check_storage(storage: str) -> None:
    if storage.startswith("s3://"):
        return
    if "://" in storage:
        raise UsageError(f"'{storage}' can't be the storage", hint="it is a folder, or s3://bucket/prefix")
    if not os.path.isabs(storage):
        raise UsageError(f"'{storage}' is not an absolute path on the server's machine")


def _limit(text: str) -> int:
    """What the server takes: -1 for no limit."""
    if text and not text.isdecimal():
        raise UsageError(f"'{text}' is no number of GPUs", hint="write a whole number, or '' for no limit")
    return int(text) if text else -1


def _server() -> ServerConfig | None:
    try:
        return settings.connect().config()
    except TryAgainError:
        return None
