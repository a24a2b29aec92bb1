"""What is removed, on the wire and in `--json`."""

from __future__ import annotations

from msgspec import Struct


class DeleteRequest(Struct, kw_only=True):
    """The body of `POST /runs/delete`."""

    refs: tuple[str, ...]


class PruneRequest(Struct, kw_only=True):
    """The body of `POST /prune`. `older_than` in seconds."""

    keep_last: int | None = None
    older_than: float | None = None
    dry_run: bool = False


class Removed(Struct, kw_only=True):
    """A run that was removed, or would be. `bytes` become free; `kept` are the workflows whose results others use;
    `stays` says in sentences what a storage that was in use before does not let go."""

    run: str
    workflow: str
    submitted_at: str
    bytes: int
    kept: list[str]
    stays: list[str] = []


class PruneCachesRequest(Struct, kw_only=True):
    """The body of `POST /prune/caches`: folders that no job used for so many seconds go."""

    unused_for: float = 0
    dry_run: bool = False


class CacheFolder(Struct, kw_only=True):
    """A folder that workflows of a repository keep on a runner, which was removed or would be. `cache` is its path in
    containers; `bytes` become free."""

    runner: str
    cache: str
    repo: str
    bytes: int
    used_at: str


class PruneRestRequest(Struct, kw_only=True):
    """The body of `POST /prune/rest`: what those runs do not need that stay by the same rule as that of `POST /prune`.
    `images`: also images that dstack pulled."""

    keep_last: int | None = None
    older_than: float | None = None
    images: bool = False
    dry_run: bool = False


class Leftover(Struct, kw_only=True):
    """What was removed besides runs, or would be. `what` is `code` (a copy of a repository), `image`, `objects` (of a
    job that ended before its artifacts were complete) or `contents` (which came to a folder for a job that was
    aborted); `runner` is where, None for the server and the storage."""

    what: str
    name: str
    bytes: int
    runner: str | None = None
