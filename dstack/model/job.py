"""A run and its jobs, as recorded. What users see of them is in `model/api/`."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.snapshot import Snapshot
from dstack.model.status import Status
from dstack.model.workflow import Variables, Workflow


class Ends:
    """What `Job.exit_code` says when the container's own code does not apply (docs/exit-codes.md)."""

    NO_ARTIFACT = 1
    WITHDRAWN = 75
    MAX_DURATION = 124
    DSTACK = 125
    STOPPED = 143


class Launch(Struct, frozen=True):
    """What identified the host's kernel and Docker daemon when the container was started."""

    boot: str
    docker: str


class Attempt(Struct, frozen=True, kw_only=True):
    """An attempt of a job that ended, and was followed by another. Its log is the job's from byte `log_start` to
    `log_end`. `preempted`: it gave way to a job of higher priority."""

    number: int
    status: Status
    exit_code: int | None
    reason: str | None
    runner: str | None
    gpus: tuple[int, ...]
    started_at: str | None
    finished_at: str
    log_start: int
    log_end: int
    preempted: bool = False


class Job(Struct, frozen=True, kw_only=True):
    """One workflow of one run.

    `key` is the cache key, `why` one line about the cache. `dependencies` maps the direct dependencies to the jobs
    whose artifacts they give: for a cached one that is the job it came from. `launching` is committed before the
    container may be started: from then on the host is asked what happened. `stop` is the user's wish: "stop", or
    "abort" to keep nothing. `end` is what an uploading job will be, and `ending` why. `unreachable_since` is set
    while the host gives no answer, `discarded` once nothing of the job is left on its runner. `priority` orders the
    queue; `held` says who keeps the job from starting; `placed_at` is when it got its runner. `expired` says that it
    ran for longer than it may, `warned` that it was told before, `cause` is what it may be retried for; `history`
    holds the attempts before this one, whose log begins at byte `log_start`. `preempted` says for whom it is to give
    way, `yielding` that it was told. `shares` is a job of the same key that
    is under way: its result will be this one's. `storages` are the places where something of it may be stored, each
    with its endpoint, "" for none. Times are RFC 3339, UTC.
    """

    id: str
    run: str
    workflow: str
    definition: Workflow
    variables: Variables
    image: str
    key: str
    why: str
    submitted_at: str
    status: Status = Status.QUEUED
    reason: str | None = None
    exit_code: int | None = None
    cached_from: str | None = None
    shares: str | None = None
    dependencies: dict[str, str] = {}
    runner: str | None = None
    gpus: tuple[int, ...] = ()
    image_digest: str | None = None
    attempt: int = 1
    launching: bool = False
    launch: Launch | None = None
    stop: str | None = None
    end: Status | None = None
    ending: str | None = None
    unreachable_since: str | None = None
    priority: int = 0
    held: str | None = None
    placed_at: str | None = None
    expired: bool = False
    warned: bool = False
    cause: str | None = None
    preempted: str | None = None
    yielding: bool = False
    history: tuple[Attempt, ...] = ()
    log_start: int = 0
    started_at: str | None = None
    finished_at: str | None = None
    files: int = 0
    bytes: int = 0
    discarded: bool = False
    storages: tuple[tuple[str, str], ...] = ()

    @property
    def finished(self) -> bool:
        """Nothing will change any more."""
        return self.status.finished

    @property
    def source(self) -> str:
        """The job whose log and artifacts this one shows."""
        return self.cached_from or self.id


class Run(Struct, frozen=True, kw_only=True):
    """What a user submitted. `pin` is a runner's name or label that it must run on; `environment` is from
    `-e`, `gpus` from `--gpus`. `workflows` and `inputs`, by workflow, are definitions and variables as submitted.
    `timeout` is after how many seconds in the queue it is withdrawn, `once` the idempotency key."""

    name: str
    workflow: str
    user: str
    submitted_at: str
    snapshot: Snapshot
    variables: dict[str, str | None]
    pin: str | None = None
    environment: dict[str, str] = {}
    workflows: tuple[Workflow, ...] = ()
    inputs: dict[str, Variables] = {}
    gpus: int | None = None
    timeout: float | None = None
    once: str | None = None
