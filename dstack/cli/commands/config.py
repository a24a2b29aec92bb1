"""`dstack config`: which server to use, and the server's settings."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
from msgspec.structs import asdict

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.parameters import json_option, read_secret
from dstack.client import embedded
from dstack.client.settings import Endpoint, configured, load, save, secure_connection
from dstack.errors import TryAgainError, UsageError
from dstack.model.api.server import ServerConfig


@click.command("config")
@click.option(
    "--url",
    metavar="URL",
    help="Server to use, https://HOST:PORT or http://HOST:PORT; '' for your own on this machine.",
)
@click.option(
    "--token",
    metavar="[TOKEN]",
    is_flag=False,
    flag_value="-",
    help="Token for that server. Without TOKEN, which `ps` would show, it is read from stdin or a prompt.",
)
@click.option(
    "--tls-ca", metavar="FILE", help="Certificates of authorities to trust for that server; '' for the system's alone."
)
@click.option(
    "--storage", metavar="URL", help="Where the server stores artifacts: an absolute path, or s3://bucket/prefix."
)
@click.option("--endpoint-url", metavar="URL", help="S3 endpoint, with --storage s3://...; default: AWS.")
@click.option(
    "--max-gpus-per-user", metavar="N", help="How many GPUs the jobs of one user may use at once; '' for no limit."
)
@click.option(
    "--notify",
    metavar="URL",
    multiple=True,
    help="Send messages about runs there: https://..., slack+https://..., ntfy://HOST/TOPIC, mailto:ADDRESS, "
    "smtp://...; repeatable. '-' reads the URL from stdin or a prompt; '' removes all.",
)
@json_option
def command(
    url: str | None,
    token: str | None,
    tls_ca: str | None,
    storage: str | None,
    endpoint_url: str | None,
    max_gpus_per_user: str | None,
    notify: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the settings, or change those given as options."""
    home = embedded.home()
    if url is not None or token is not None or tls_ca is not None:
        _change(home, url, token, tls_ca)
    if storage is not None:
        if "://" not in storage and not os.path.isabs(storage):
            raise UsageError(f"--storage: '{storage}' is not an absolute path on the server")
        connect.connect().configure(ServerConfig(storage=storage, endpoint_url=endpoint_url or None))
    elif endpoint_url is not None:
        raise UsageError("--endpoint-url needs --storage", hint="dstack config --storage s3://... --endpoint-url URL")
    if max_gpus_per_user is not None:
        connect.connect().configure(ServerConfig(max_gpus_per_user=_limit(max_gpus_per_user)))
    for text in notify:
        _notify(text)
    try:
        server = connect.connect().config()
    except TryAgainError:
        server = ServerConfig()
    endpoint = configured(home)
    address = endpoint.url if endpoint else None
    saved = load(home)
    used, kept = bool(endpoint and endpoint.token), bool(saved.token and not saved.url)
    authorities = endpoint.ca if endpoint else None
    if as_json:
        own = {"home": str(home), "url": address, "token": used or kept, "tls_ca": authorities}
        show.document({**own, **asdict(server)})
        return
    limit = server.max_gpus_per_user
    show.fields(
        [
            ("home", str(home)),
            ("server", address or f"your own on this machine, {embedded.socket_path(home)}"),
            (
                "token",
                "set"
                if used
                else "set, but not used until `dstack config --url URL` names its server"
                if kept
                else None,
            ),
            ("authorities", authorities),
            ("storage", server.storage or "unknown; the server is unreachable"),
            ("endpoint", server.endpoint_url),
            *(("notify", each) for each in server.notify or ()),
            ("GPUs per user", None if limit is None else str(limit)),
        ]
    )


def _change(home: Path, url: str | None, token: str | None, tls_ca: str | None) -> None:
    saved = load(home)
    if url is not None:
        saved.url = Endpoint.parse(url).url if url else None
        if token is None and not url:
            saved.token = None
    if token is not None:
        saved.token = (read_secret("token").partition("\n")[0].strip() if token == "-" else token) or None
        if token not in ("", "-"):
            connect.warn(
                "warning: the token is visible in `ps` and in your shell's history; `dstack config --token` asks for it"
            )
    if tls_ca is not None:
        saved.tls_ca = _authorities(tls_ca) if tls_ca else None
    save(home, saved)
    if saved.token and token is not None and saved.url is None:
        connect.warn("warning: the token is saved, but is not used until you name its server: dstack config --url URL")
    if url is not None and os.environ.get("DSTACK_SERVER_URL"):
        connect.warn("warning: DSTACK_SERVER_URL is set and overrides the URL that you saved")


def _notify(text: str) -> None:
    """Add a notify URL, or remove all."""
    if not text:
        for removed in connect.connect().clear_notify():
            show.say(f"{removed.url}: removed")
        return
    added = connect.connect().add_notify(read_secret("URL").strip() if text == "-" else text)
    show.say(f"{added.target.url}: added; to try it: dstack notify test {added.target.number}")
    if added.key:
        show.say(f"its messages are signed; the receiver needs this key, which is not shown again: {added.key}")


def _authorities(file: str) -> str:
    """Return the absolute path of a file with certificates. Raises UsageError if it has none."""
    path = str(Path(file).expanduser().absolute())
    secure_connection("localhost", None, 1, path)
    return path


def _limit(text: str) -> int:
    """Return the limit for the server; -1 means no limit."""
    if text and not re.fullmatch("[0-9]{1,6}", text):
        message = f"--max-gpus-per-user: '{text}' is not a whole number from 0 to 999999"
        raise UsageError(message, hint="write a whole number, or '' for no limit")
    return int(text) if text else -1
