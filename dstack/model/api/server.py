"""The server, its secrets and its errors, in the API and in `--json`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dstack.model.api.notify import NotifyTarget

API = 1
"""The version of the API. Raise it when older CLIs or servers can no longer take part."""


class SetSecret(Struct, kw_only=True):
    """The body of `POST /secrets`."""

    name: str
    value: str


class SecretView(Struct, kw_only=True):
    """A secret as users see it, without its value."""

    name: str
    set_at: str


class DeletedSecret(Struct, kw_only=True):
    """The response of `DELETE /secrets/NAME`: the jobs that need the secret and have not started."""

    missed_by: list[str]


class ServerConfig(Struct, kw_only=True):
    """What `dstack config` sets on the server; None means unchanged. `storage` is a folder or s3://bucket/prefix;
    `endpoint_url` is for S3 stores other than AWS; `max_gpus_per_user` is how many GPUs one user's jobs may hold at
    once, -1 for no limit. `notify`, the masked URLs, is only shown."""

    storage: str | None = None
    endpoint_url: str | None = None
    max_gpus_per_user: Annotated[int, Meta(ge=-1, le=10**6)] | None = None
    notify: list[str] | None = None


class TaskTrouble(Struct, kw_only=True):
    """A task of the server that fails and is tried again: how often it has failed, since when, and why."""

    task: str
    count: int
    since: str
    reason: str
    code: str


class DiskSpace(Struct, kw_only=True):
    """The disk of the server's state, in bytes. While less than `reserve` is free, or the disk has room for no more
    files, it is `low`: no run is accepted."""

    free: int
    reserve: int
    low: bool


class ChangeIdentity(Struct, kw_only=True):
    """The body of `POST /identity`: become a server with a `new` id, or take the machines over from a copy."""

    new: bool


class ServerStatus(Struct, kw_only=True):
    """The response of `GET /status`. `runs` is the number of unfinished runs. `id` names the server's folders on
    machines; `epoch` is raised by a restore. `damaged` are the records that could not be decoded, such as
    `job 1a2b`. `notify` are the URLs that messages don't get to. An older server tells no `disk`."""

    pid: int
    url: str
    version: str
    api: int
    started_at: str
    runs: int
    home: str
    disk: DiskSpace | None = None
    troubles: list[TaskTrouble] = []
    id: str = ""
    epoch: int = 1
    damaged: list[str] = []
    notify: list[NotifyTarget] = []


class Problem(Struct, kw_only=True):
    """An error response. `kind` is the name of a class in `dstack/errors.py`, or one that clients handle: `host-key`,
    or `missing-base`, where `known` has the objects that a pack may build on. `code` is the error's code
    (docs/codes.md)."""

    kind: str
    message: str
    hint: str | None = None
    code: str = "error"
    exit_code: int = 125
    fingerprint: str | None = None
    known: tuple[str, ...] = ()


class PageLink(Struct, kw_only=True):
    """The response of `POST /ui`: the path of a link that opens the web page once, and the URL that it is below; None
    for the URL that the client itself uses."""

    path: str
    url: str | None = None
