"""Runs and jobs, in the API and in `--json`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dstack.model.api.events import EventView
from dstack.model.api.jobs import CacheView, JobView
from dstack.model.api.results.metrics import Number
from dstack.model.code.snapshot import PLAIN, Snapshot
from dstack.model.code.tree import Change, PathMode, SizedFile
from dstack.model.job.status import Status
from dstack.model.project.workflow import Count, Variables, Workflow


class Submission(Struct, kw_only=True):
    """The body of `POST /runs`: this as one line of JSON, then a git pack of the objects that the server lacks.

    `workflows` has the named workflow and everything it depends on, `variables` theirs. `runner` is a name or a label;
    `local` means the server's own machine. `environment` comes from `-e`. With `from_run`, the run uses that run's
    snapshot, and no pack follows. After `timeout` seconds in the queue the run is withdrawn. `singleton` refuses the
    run while another one of this repository and workflow is unfinished. The same `once` of the same user returns the
    same run. `wait_for_runner` accepts the run even if no runner could run it yet. Only the server itself names a
    `trigger`.
    """

    workflow: str
    workflows: tuple[Workflow, ...]
    variables: dict[str, Variables]
    snapshot: Snapshot
    user: str
    name: str | None = None
    runner: str | None = None
    local: bool = False
    no_cache: bool = False
    gpus: Count | None = None
    environment: dict[str, str] = {}
    dry_run: bool = False
    from_run: str | None = None
    priority: Annotated[int, Meta(ge=0, le=100)] | None = None
    timeout: Annotated[float, Meta(ge=0)] | None = None
    singleton: bool = False
    once: str | None = None
    wait_for_runner: bool = False
    trigger: str | None = None


class RepoView(Struct, kw_only=True):
    """The origin of a run's code."""

    url: str | None
    branch: str | None
    commit: str | None
    dirty: bool


class RunView(Struct, kw_only=True):
    """A run as users see it. `variables` are as text, so null is `null`. `metrics` has the last value of each metric.
    `warnings` are about its submission. `trigger` is the name of the trigger that started it."""

    name: str
    workflow: str
    user: str
    status: Status
    exit_code: int | None
    reason: str | None
    reason_code: str | None
    submitted_at: str
    finished_at: str | None
    repo: RepoView
    variables: dict[str, str]
    jobs: list[JobView]
    warnings: list[str] = []
    metrics: dict[str, Number] = {}
    trigger: str | None = None


class PlannedJob(Struct, kw_only=True):
    """A job of a dry run. `runner` is where it would run, or None with a `reason`."""

    workflow: str
    image: str
    cached_from: str | None
    cache: CacheView
    runner: str | None
    reason: str | None
    reason_code: str | None


class Plan(Struct, kw_only=True):
    """The response to a dry run. `files` and `bytes` count the whole snapshot; `largest` and `changes` are sorted by
    size. `modes` has the permissions that differ from what `umask` gives."""

    workflow: str
    repo: RepoView
    jobs: list[PlannedJob]
    changes: list[Change]
    files: int
    bytes: int
    largest: list[SizedFile] = []
    umask: str = PLAIN
    modes: list[PathMode] = []
    empty_folders: list[str] = []
    warnings: list[str] = []


class Recipe(Struct, kw_only=True):
    """Everything needed to submit a run again."""

    workflow: str
    workflows: tuple[Workflow, ...]
    variables: dict[str, Variables]
    snapshot: Snapshot
    environment: dict[str, str]
    gpus: int | None = None


class Event(Struct, kw_only=True, omit_defaults=True):
    """A frame of `GET /follow/REF`: one line of JSON. After a `log` event, `bytes` raw bytes of the job's log follow.

    `event` is `job` (a job changed, see `job`), `log` (`id`, `workflow`, `offset` in bytes, `time` of arrival), `run`
    (the run has ended: the last frame) or `ping` (nothing happened for a while). In `GET /events?follow=1` it is
    `event` (an event of the log, see `entry`) or `ping`.
    """

    event: str
    job: JobView | None = None
    run: RunView | None = None
    id: str | None = None
    workflow: str | None = None
    offset: Annotated[int, Meta(ge=0)] | None = None
    bytes: Annotated[int, Meta(ge=0)] | None = None
    time: str | None = None
    entry: EventView | None = None
