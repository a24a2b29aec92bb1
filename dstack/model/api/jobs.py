"""Jobs as they travel over HTTP."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.job.status import Phase, Progress, Status


class CacheView(Struct):
    """Whether the result came from the cache, and one line that says why or why not."""

    hit: bool
    why: str


class ArtifactsView(Struct):
    """The number of a job's artifact files, and their total size in bytes."""

    files: int
    bytes: int


class AttemptView(Struct, kw_only=True):
    """An earlier attempt of a job. Its part of the job's log is from byte `log_start` to `log_end`."""

    number: int
    status: Status
    exit_code: int | None
    reason: str | None
    reason_code: str | None
    runner: str | None
    gpus: list[int]
    started_at: str | None
    finished_at: str
    log_start: int
    log_end: int


class JobView(Struct, kw_only=True):
    """A job as users see it. `progress` is that of the transfer in this `phase`, if it is known. `position` is its
    position in the queue, from 1; None if it is not waiting for a runner. `attempts` are the earlier ones; the log of
    the current one starts at byte `log_start`. `ports` are those of its workflow."""

    id: str
    run: str
    workflow: str
    status: Status
    phase: Phase
    progress: Progress | None
    exit_code: int | None
    reason: str | None
    reason_code: str | None
    cached: bool
    cached_from: str | None
    cache: CacheView
    runner: str | None
    gpus: list[int]
    image: str
    image_digest: str | None
    attempt: int
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    artifacts: ArtifactsView
    priority: int = 0
    position: int | None = None
    attempts: list[AttemptView] = []
    log_start: int = 0
    ports: list[int] = []


class StopRequest(Struct, kw_only=True):
    """The body of `POST /stop`. `refs` are runs or jobs. Instead of these, `everything` stops all unfinished runs, and
    `workflow` those of one workflow."""

    refs: tuple[str, ...] = ()
    everything: bool = False
    abort: bool = False
    workflow: str | None = None


class HoldRequest(Struct, kw_only=True):
    """The body of `POST /hold`. `refs` are runs or jobs; `user` is who holds them, None to release them."""

    refs: tuple[str, ...]
    user: str | None = None


class HoldAnswer(Struct, kw_only=True):
    """The jobs that were held or released, by run, and the runs without a queued job to change."""

    changed: dict[str, list[str]]
    unchanged: list[str]
