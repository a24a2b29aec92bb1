"""The server itself, its secrets and its errors, on the wire and in `--json`."""

from __future__ import annotations

from msgspec import Struct

API = 1
"""Raised when a CLI and a server of different numbers can't talk."""


class SetSecret(Struct, kw_only=True):
    """The body of `POST /secrets`."""

    name: str
    value: str


class SecretView(Struct, kw_only=True):
    """A secret as users see it: never its value."""

    name: str
    set_at: str


class DeletedSecret(Struct, kw_only=True):
    """The answer of `DELETE /secrets/NAME`: the jobs that have not started, and need it."""

    missed_by: list[str]


class ServerConfig(Struct, kw_only=True):
    """What `dstack config` sets on the server; None leaves it. `storage` is a folder or s3://bucket/prefix, with the
    `endpoint_url` of a store that is not AWS's; `max_gpus_per_user` is how many GPUs one user's jobs may hold at once,
    -1 for any number."""

    storage: str | None = None
    endpoint_url: str | None = None
    max_gpus_per_user: int | None = None


class ServerStatus(Struct, kw_only=True):
    """The answer of `GET /status`. `runs` counts the unfinished ones."""

    pid: int
    url: str
    version: str
    api: int
    started_at: str
    runs: int
    home: str


class Problem(Struct, kw_only=True):
    """An error as the server tells it. `kind` is the name of the class in `dstack/errors.py`, or one of those that
    a client acts on: `host-key`, `missing-base` (`known` is what a pack may build on)."""

    kind: str
    message: str
    hint: str | None = None
    exit_code: int = 125
    fingerprint: str | None = None
    known: tuple[str, ...] = ()
