"""A run and its jobs, as recorded. What users see is in `model/api/`."""

from __future__ import annotations

from msgspec import Struct, field

from dstack.model.code.snapshot import Snapshot
from dstack.model.job.reasons import Reason, ReasonCode, reason_code
from dstack.model.job.status import Phase, Progress, Status
from dstack.model.project.workflow import Variables, Workflow

STOPPED_BY_USER = ReasonCode.STOPPED_BY_USER


class ExitCode:
    """The values of `Job.exit_code` when the container's own code does not apply (docs/exit-codes.md)."""

    NO_ARTIFACT = 1
    WITHDRAWN = 75
    MAX_DURATION = 124
    DSTACK = 125
    STOPPED = 143


class Origin(Struct, frozen=True):
    """A moment on a machine: its boot, the process of the engine that holds its containers (a job launched by an older
    version has those of all engines there; the server's own moments have none), and the seconds since the boot, None if
    unknown."""

    boot: str
    engine: str = field(name="docker")
    uptime: float | None = None

    def until(self, now: Origin) -> float | None:
        """Return the seconds between two moments by the machine's own clock, None if it can't tell."""
        if self.boot != now.boot or self.uptime is None or now.uptime is None:
            return None
        return now.uptime - self.uptime


class Attempt(Struct, frozen=True, kw_only=True):
    """An earlier attempt of a job. Its part of the job's log is from byte `log_start` to `log_end`. `preempted`: it was
    stopped for a job of higher priority."""

    number: int
    status: Status
    exit_code: int | None
    reason: Reason | None
    runner: str | None
    gpus: tuple[int, ...]
    started_at: str | None
    finished_at: str
    log_start: int
    log_end: int
    preempted: bool = False


class Job(Struct, frozen=True, kw_only=True):
    """One workflow of one run.

    - `key` is the cache key, `why` one line about the cache. `shares` is an unfinished job with the same key, whose
      result this one will use. `dependencies` maps each direct dependency to the job that made its artifacts.
    - `priority` orders the queue; `held` says who keeps the job from starting; `placed_at` is when it got its runner.
    - `launching` is committed before the container may start: from then on, only the runner knows what happened.
    - `preparation` is the phase of a job with the status PREPARING, `progress` that of the current transfer.
    - `stop` is what the user asked for: "stop", or "abort" to keep nothing. `stop_reason` is why, unless it was
      `dstack stop`. `final_status` and `final_reason` are what an uploading job will end with.
    - `unreachable_since` is set while the runner does not answer; `discarded` once nothing of the job is left there.
    - `expired`: it ran longer than allowed; `warned`: it got the warning signal; `cause` is what it may be retried for.
    - `outran`: it ended before the stop arrived, so it keeps its own end.
    - `history` has the earlier attempts; the log of this one starts at byte `log_start`.
    - `preempted_by` is the run, with its user, that it must make room for; `yielding`: it was told to stop for that.
    - `choice` is the code that says why it got its runner.
    - `storages` are the storages that may have some of its artifacts, each with its endpoint or "".

    Times are RFC 3339, UTC.
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
    preparation: Phase = Phase.SHIPPING
    progress: Progress | None = None
    reason: Reason | None = None
    exit_code: int | None = None
    cached_from: str | None = None
    shares: str | None = None
    dependencies: dict[str, str] = {}
    runner: str | None = None
    gpus: tuple[int, ...] = ()
    image_digest: str | None = None
    attempt: int = 1
    launching: bool = False
    launch: Origin | None = None
    stop: str | None = None
    stop_reason: Reason | None = None
    final_status: Status | None = None
    final_reason: Reason | None = None
    unreachable_since: str | None = None
    priority: int = 0
    held: str | None = None
    placed_at: str | None = None
    expired: bool = False
    warned: bool = False
    outran: bool = False
    cause: str | None = None
    preempted_by: str | None = None
    yielding: bool = False
    history: tuple[Attempt, ...] = ()
    log_start: int = 0
    started_at: str | None = None
    finished_at: str | None = None
    files: int = 0
    bytes: int = 0
    discarded: bool = False
    storages: tuple[tuple[str, str], ...] = ()
    choice: str | None = None

    @property
    def finished(self) -> bool:
        return self.status.finished

    @property
    def phase(self) -> Phase:
        """What happens to the job now."""
        if self.finished:
            return Phase.ENDED
        return self.preparation if self.status is Status.PREPARING else Phase(self.status.value)

    @property
    def reason_code(self) -> ReasonCode | None:
        """The code of the reason; also for a failure that needs no text."""
        return reason_code(self.status, self.reason)

    def stopped(self, how: str = "stopped by dstack stop", more: str = "") -> Reason:
        """Return the reason of a job that was stopped: why somebody wanted that, or else `how`, and `more`."""
        code, text = (self.stop_reason.code, self.stop_reason.text) if self.stop_reason else (STOPPED_BY_USER, how)
        return Reason(code, text + more)

    @property
    def source(self) -> str:
        """The id of the job whose log and artifacts this one shows."""
        return self.cached_from or self.id


class Run(Struct, frozen=True, kw_only=True):
    """What a user submitted. `pin` is the name or label of a runner that it must run on; `environment` comes from `-e`,
    `gpus` from `--gpus`. `workflows` are the definitions as submitted, `inputs` their variables by workflow. After
    `timeout` seconds in the queue it is withdrawn. `once` is the idempotency key. `accepted` is the moment of the
    submission by the server's clock since its boot. `trigger` is the name of the one that started it."""

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
    accepted: Origin | None = None
    trigger: str | None = None


class LaunchRecord(Struct, frozen=True, kw_only=True):
    """A job with its run as it was launched, in the job's folder: from it, a server that does not know the job can
    follow it. It has no secrets: neither values nor what `-e` set."""

    run: Run
    job: Job


def decisive(jobs: list[Job]) -> Job | None:
    """Return the job that decided how the run ended: the first that failed or was lost, else the first that stopped."""
    for ends in ((Status.FAILED, Status.LOST), (Status.STOPPED,)):
        ended = [job for job in jobs if job.status in ends and job.exit_code is not None]
        if ended:
            return min(ended, key=lambda job: job.finished_at or "")
    return None
