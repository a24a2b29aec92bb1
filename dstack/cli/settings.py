"""Which server this user's commands talk to: DSTACK_SERVER_URL, `dstack config --url`, or the embedded one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from dstack.cli import show
from dstack.errors import UsageError
from dstack.model.paths import ServerLayout
from dstack.server import embedded
from dstack.server.client import Client
from dstack.server.endpoint import Endpoint


class Settings(msgspec.Struct, omit_defaults=True):
    """What HOME/config.json holds."""

    url: str | None = None
    token: str | None = None


def load(home: Path) -> Settings:
    """The settings as saved, or empty ones."""
    path = ServerLayout(home).config
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        return Settings()
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{path} is damaged: {error}", hint="dstack config --url ... --token ... writes it anew"
        ) from error


def save(home: Path, settings: Settings) -> None:
    """Replace the file at once; nobody else may read it, because of the token."""
    path = ServerLayout(home).config
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    opened = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(msgspec.json.encode(settings) + b"\n")
    aside.replace(path)


def configured(home: Path) -> Endpoint | None:
    """The server that the user named, or None for the embedded one. A saved token goes to the saved URL alone."""
    saved = load(home)
    url = os.environ.get("DSTACK_SERVER_URL") or saved.url
    token = os.environ.get("DSTACK_TOKEN") or (saved.token if url == saved.url else None)
    return Endpoint.parse(url, token) if url else None


def warn(text: str) -> None:
    """A line on stderr that does not end the command."""
    show.say(f"dstack: {text}", style="yellow")


def connect() -> Client:
    """A client of the server in charge; only the embedded one is started when it is not there."""
    home = embedded.home()
    endpoint = configured(home)
    return embedded.connect(home, warn) if endpoint is None else Client(endpoint, say=warn)
