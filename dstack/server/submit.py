"""Answers `POST /runs`: reads the submission and the pack of its code, and shows the run or the plan."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TypeVar

from msgspec.structs import replace

from dstack.engine.submission.submit import LOCAL, Preview, Submitter
from dstack.errors import DiskFullError, UsageError
from dstack.model.api import wire
from dstack.model.api.jobs import CacheView
from dstack.model.api.runs import Plan, PlannedJob, RepoView, RunView, Submission
from dstack.model.code.tree import PathMode
from dstack.model.job.job import Job
from dstack.model.project.interpolation import IDENTIFIER
from dstack.plumbing.space import require
from dstack.server.border.values import reading, sound
from dstack.server.roles import caller, require_commands
from dstack.server.views import run_view, shown
from dstack.store.store import Store

T = TypeVar("T")

COPIES = 2
"""How many copies of a submission are on the disk for a moment: as it came, and in the mirror."""
LISTED = 100
"""How many files a dry run lists, largest first."""
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL character in JSON; no shell, environment or file name takes one."""
LONGEST_HEAD = 64 * 1024 * 1024
"""Most bytes of the line with the submission."""


async def submit(submitter: Submitter, folder: Path, body: AsyncIterator[bytes], size: int) -> RunView | Plan:
    """Record the submission as a run, or return its plan for a dry run. The pack is kept in the folder meanwhile.
    Raises DiskFullError, before reading anything, if `size` bytes don't fit."""
    require_space(folder, size)
    with NamedTemporaryFile(dir=folder, suffix=".pack") as pack:
        submission = accountable(await read(body, pack, Submission, checked), submitter.store)
        if submission.dry_run:
            return plan_view(await submitter.preview(submission, Path(pack.name)))
        submitted = await submitter.submit(submission, Path(pack.name))
    return run_view(submitted.run, submitted.jobs, warnings=submitted.warnings)


def require_space(folder: Path, size: int) -> None:
    """Raise DiskFullError unless a submission of `size` bytes fits."""
    try:
        require(folder, COPIES * size)
    except DiskFullError as full:
        raise DiskFullError(f"nothing was submitted: {full.message}", hint=full.hint) from full


def accountable(submission: Submission, store: Store) -> Submission:
    """Return the submission as one of the person whose token sends it. Raises ForbiddenError if it names the server's
    own machine, which nobody has added as a runner, and the caller may not use that."""
    local = store.runners.get(LOCAL)
    if (submission.local or submission.runner == LOCAL) and (local is None or local.hidden):
        require_commands("the server's own machine (--local)")
    return replace(submission, user=caller().name or submission.user, trigger=None)


async def read(body: AsyncIterator[bytes], pack: IO[bytes], kind: type[T], check: Callable[[T], T]) -> T:
    """Return the submission of a run or a sweep from the first line, and write what follows to the pack. `check` raises
    ValueError for one that is not sound. Raises UsageError."""
    what = "the submission can't be read"
    line = await head_of(body, pack, what)
    with reading(what):
        return check(wire.decode(line, kind))


async def head_of(body: AsyncIterator[bytes], pack: IO[bytes], failed: str) -> bytes:
    """Return the first line of a body, and write what follows to the pack. Raises UsageError, which begins with
    `failed`, for a line that is too long or contains a NUL character."""
    head = bytearray()
    async for data in body:
        head += data
        if b"\n" in data:
            break
        if len(head) > LONGEST_HEAD:
            raise UsageError("the submission is too large")
    line, _, rest = bytes(head).partition(b"\n")
    pack.write(rest)
    async for data in body:
        await asyncio.to_thread(pack.write, data)
    pack.flush()
    if NUL.search(line):
        raise UsageError(f"{failed}: a text in it contains a NUL character")
    return line


def checked(submission: Submission) -> Submission:
    """Return the submission if its parts fit together. Raises ValueError for what no `dstack run` would send."""
    names = (submission.workflow, *(workflow.name for workflow in submission.workflows))
    lacking = next((name for name in names if name not in submission.variables), None)
    if submission.workflow not in names[1:] or lacking:
        raise ValueError(f"it lacks the definition or the variables of '{lacking or submission.workflow}'")
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", submission.snapshot.repo):
        raise ValueError("the id of its repository is not one word")
    for name in submission.environment:
        if not IDENTIFIER.fullmatch(name):
            raise ValueError(f"-e: {name!r} is not a valid variable name")
    for field in ("workflow", "user", "name", "runner", "from_run", "once", "gpus", "priority", "timeout"):
        sound(getattr(submission, field))
    return submission


def plan_view(preview: Preview) -> Plan:
    """Return a plan as users see it."""
    draft, snapshot = preview.draft, preview.draft.run.snapshot
    modes = sorted(preview.modes.by_path.items())
    return Plan(
        workflow=draft.run.workflow,
        repo=shown(snapshot, RepoView),
        jobs=[planned_view(job, preview) for job in draft.jobs],
        changes=sorted(preview.changes, key=lambda change: -change.size),
        files=len(preview.files),
        bytes=sum(file.size for file in preview.files),
        largest=preview.files[:LISTED],
        umask=snapshot.umask,
        modes=[PathMode(os.fsdecode(path) or ".", f"{mode:04o}") for path, mode in modes],
        empty_folders=[os.fsdecode(path) for path in preview.modes.empty],
        warnings=draft.warnings,
    )


def planned_view(job: Job, preview: Preview) -> PlannedJob:
    """Return a job of a plan as users see it."""
    placement, reason = preview.schedule.placements.get(job.id), preview.schedule.reasons.get(job.id)
    return shown(
        job,
        PlannedJob,
        cache=CacheView(job.cached_from is not None, job.why),
        runner=placement.runner if placement else None,
        reason=reason.text if reason else None,
        reason_code=reason.code if reason else None,
    )
