"""Which server the user's commands talk to: DSTACK_SERVER_URL, `dstack config --url`, or the embedded one."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import msgspec

from dstack.client.endpoint import Endpoint
from dstack.errors import UsageError
from dstack.model.paths import ServerLayout


class ClientSettings(msgspec.Struct, omit_defaults=True):
    """The contents of DSTACK_HOME/config.json."""

    url: str | None = None
    token: str | None = None


def load(home: Path) -> ClientSettings:
    """Return the saved settings, or empty ones."""
    path = ServerLayout(home).config
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClientSettings)
    except FileNotFoundError:
        return ClientSettings()
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{path} is damaged: {error}",
            hint=f"remove it with `rm {path}`, then run `dstack config --url URL --token TOKEN`",
        ) from error


def save(home: Path, settings: ClientSettings) -> None:
    """Replace the file atomically. Only its owner may read it, because it holds the token."""
    path = ServerLayout(home).config
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    opened = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(msgspec.json.encode(settings) + b"\n")
    aside.replace(path)


def configured(home: Path) -> Endpoint | None:
    """Return the server that the user configured, or None for the embedded one. A saved token is sent only to the saved
    URL."""
    saved = load(home)
    url = os.environ.get("DSTACK_SERVER_URL") or saved.url
    token = os.environ.get("DSTACK_TOKEN") or (saved.token if url == saved.url else None)
    return Endpoint.parse(url, token) if url else None


def user() -> str:
    """Return the name of the user, even without a login shell's environment."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the password database has no such user
        return str(os.getuid())
