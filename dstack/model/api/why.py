"""The answer to `dstack why`, as it travels over HTTP."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.api.jobs import CacheView
from dstack.model.job.status import Phase, Status


class HolderView(Struct):
    """A job that holds a part of a runner, `since` when (RFC 3339)."""

    run: str
    user: str
    job: str
    gpus: list[int]
    since: str


class RunnerWhy(Struct):
    """What is in the way on one runner; `code` and `text` are null if nothing is."""

    runner: str
    code: str | None
    text: str | None
    holders: list[HolderView]


class Advice(Struct):
    """What would change that, in words, and the command that does it if there is one."""

    text: str
    command: str | None = None


class InputChange(Struct):
    """An input of a job that differs from the last time its workflow was done. `before` or `after` is null if it was
    added or removed."""

    input: str
    before: str | None
    after: str | None
    text: str


class PlacedWhy(Struct):
    """The runner that a job got, when (RFC 3339), and why it and no other; `code` is one of docs/codes.md."""

    runner: str
    at: str | None
    code: str | None
    text: str | None


class JobWhy(Struct, kw_only=True):
    """Why a job is where it is. `compared_with` is the run with whose job the inputs are compared. `log` are the last
    lines that a failed job printed."""

    job: str
    workflow: str
    status: Status
    phase: Phase
    reason: str | None
    reason_code: str | None
    exit_code: int | None
    cache: CacheView
    compared_with: str | None = None
    changes: list[InputChange] = []
    placed: PlacedWhy | None = None
    runners: list[RunnerWhy] = []
    log: str = ""
    advice: list[Advice] = []


class WhyView(Struct, kw_only=True):
    """Why a run, or one of its jobs, is where it is."""

    run: str
    status: Status
    jobs: list[JobWhy]
