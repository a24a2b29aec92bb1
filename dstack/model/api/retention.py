"""What is removed, in the API and in `--json`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class DeleteRequest(Struct, kw_only=True):
    """The body of `POST /runs/delete`."""

    refs: tuple[str, ...]


class PruneRequest(Struct, kw_only=True):
    """The body of `POST /prune`. `older_than` in seconds."""

    keep_last: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    older_than: Annotated[float, Meta(ge=0)] | None = None
    dry_run: bool = False


class Removed(Struct, kw_only=True):
    """A run that was removed, or would be. `bytes` are freed; `kept` are the workflows whose results other runs use;
    `stays` says in sentences what could not be removed from a storage used earlier."""

    run: str
    workflow: str
    submitted_at: str
    bytes: int
    kept: list[str]
    stays: list[str] = []


class PruneCachesRequest(Struct, kw_only=True):
    """The body of `POST /prune/caches`. Removes folders that no job used for this many seconds."""

    unused_for: Annotated[float, Meta(ge=0)] = 0
    dry_run: bool = False


class CacheFolder(Struct, kw_only=True):
    """A cache folder of a runner that was removed, or would be. `cache` is its path in containers."""

    runner: str
    cache: str
    repo: str
    bytes: int
    used_at: str


class PruneRestRequest(PruneRequest, kw_only=True):
    """The body of `POST /prune/rest`. Removes what is not needed by the runs that `POST /prune` keeps by the same
    rule. `images` includes the images that dstack pulled."""

    images: bool = False


class Leftover(Struct, kw_only=True):
    """What else was removed, or would be. `what` is `code` (a copy of a repository), `image`, `objects` (of a job
    that ended before its artifacts were complete) or `contents` (files received for an aborted job). `runner` is where
    it was, None for the server and the storage."""

    what: str
    name: str
    bytes: int
    runner: str | None = None
