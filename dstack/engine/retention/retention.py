"""Removes runs, with everything that belongs to them, and old events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence

from dstack.engine.context import Context, log
from dstack.errors import ConflictError, StorageError
from dstack.model.api.retention import Removed
from dstack.model.job.job import Job, Run
from dstack.model.text.units import rfc3339, seconds
from dstack.store.store import Store

MOST_EVENTS = 100_000
"""How many events are kept."""
OLDEST_EVENT = 90 * 86400.0
"""Seconds for which an event is kept."""
EVENTS_LATER = 3600.0
"""Seconds between two passes over the events."""
PAGE = 500
"""How many runs are read before other requests get their turn."""
LATER = 10.0
"""Seconds between two tries to remove what could not be removed at once."""


class Retention:
    """Removes runs with their logs and artifacts. Repeatable at any point: the next call completes what one began.
    `gone` says why an earlier storage can't be cleaned now, and `stays` what stays there, each with its run."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.store = context.store
        self.lock = asyncio.Lock()
        self.gone: dict[str, str] = {}
        self.stays: list[tuple[str, str]] = []

    async def delete(self, runs: Sequence[Run]) -> list[Removed]:
        """Remove these runs. Raises ConflictError, before removing anything, if one is unfinished or has a tag."""
        for run in runs:
            why = self.kept(run)
            if why:
                raise ConflictError(f"{run.name} {why[0]}", hint=why[1])
        return await self.remove([run.name for run in runs])

    async def prunable(self, keep_last: int | None, older_than: float | None) -> list[str]:
        """The names of the runs that a rule removes, oldest first. It keeps the newest `keep_last` per repository and
        workflow, runs that ended within `older_than` seconds, and runs that are unfinished or have a tag. Without a
        rule, none."""
        if keep_last is None and older_than is None:
            return []
        tagged = {tag.run for tag in self.store.tags.all()}
        seen: Counter[tuple[str, str]] = Counter()
        found: list[str] = []
        for page in self.store.runs.pages(PAGE):
            old = []
            for run in page:
                seen[run.repo, run.workflow] += 1
                recent = keep_last is not None and seen[run.repo, run.workflow] <= keep_last
                if not (recent or run.name in tagged) and run.finished:
                    old.append(run.name)
            found += self.ended_before(old, time.time() - older_than) if older_than is not None else old
            await asyncio.sleep(0)
        return found[::-1]

    def ended_before(self, runs: Sequence[str], moment: float) -> list[str]:
        """Those of the runs that ended before a moment (seconds since the epoch)."""
        ended = self.store.jobs.ended(runs)
        return [run for run in runs if seconds(ended[run]) <= moment]

    async def remove(self, runs: Sequence[str]) -> list[Removed]:
        """Remove the runs with these names, and whatever is left of earlier ones and no longer needed."""
        removed: dict[str, Removed] = {}
        going = {*runs, *self.store.runs.hidden()}
        for page in batches(runs):
            removed |= {each.run: each for each in self.told(page, going)}
            with self.store.database.transaction():
                for run in page:
                    self.store.runs.hide(run)
            for run, what in await self.complete():
                if run in removed:
                    removed[run].stays.append(what)
        return list(removed.values())

    async def complete(self) -> list[tuple[str, str]]:
        """Remove what is left of removed runs and no longer needed. Returns what could not be removed."""
        async with self.lock:
            self.gone, self.stays = {}, []
            await self.store.database.synced()
            while [job for job in self.hidden() if await self.remove_job(job)]:
                continue
            for name in self.store.runs.hidden():
                if not self.store.jobs.of(name):
                    self.store.runs.remove(name)
            return self.stays

    async def watch(self) -> None:
        """Remove the rest of a run once nothing uses it and its runner has been cleaned."""
        while True:
            await asyncio.sleep(LATER)
            hidden = self.hidden()
            used = self.used(hidden)
            if any(job.id not in used and not self.on_host(job) for job in hidden):
                await self.complete()

    def hidden(self) -> list[Job]:
        """What is left of the jobs of removed runs."""
        return [job for run in self.store.runs.hidden() for job in self.store.jobs.of(run)]

    async def remove_job(self, job: Job) -> bool:
        """Remove a job and what it left, unless another job uses it. Returns whether the job is gone: one whose runner
        still has to be cleaned is removed by a later call."""
        if self.used([job]):
            return False
        if job.cached_from is None:
            await self.remove_artifacts(job)
        self.store.logs.remove(job.id)
        self.store.secrets.forget(job.id)
        if self.on_host(job):
            return False
        self.store.jobs.remove(job.id)
        return True

    async def remove_artifacts(self, job: Job) -> None:
        """Remove a job's artifacts. If an earlier storage can't be cleaned, record that and go on."""
        for storage in self.context.artifacts.of(job):
            try:
                if storage.name in self.gone:
                    raise StorageError(self.gone[storage.name])
                await self.context.artifacts.remove(job, storage)
            except StorageError as trouble:
                if storage.name == self.context.artifacts.current.name:
                    raise
                self.gone[storage.name] = trouble.message
                what = f"{job.run}/{job.workflow} could not be removed from {storage.name}: {trouble.message}"
                self.stays.append((job.run, what))
                log.warning("%s", what)
        if job.storages:
            self.store.jobs.change(job.id, storages=())

    def on_host(self, job: Job) -> bool:
        """Whether something of the job is still on its runner."""
        there = not job.discarded or self.store.retained_artifacts.get(job.id) is not None
        return bool(job.runner and there and self.store.runners.get(job.runner))

    def used(self, jobs: Sequence[Job], going: Collection[str] = ()) -> set[str]:
        """The ids of those whose log and artifacts another job uses or awaits. Jobs of the runs in `going` don't
        count."""
        used = {source for page in batches([job.id for job in jobs]) for source, run in self.users(page, going)}
        for each in self.store.jobs.unfinished():
            used |= {each.shares or "", *each.dependencies.values()}
        return used & {job.id for job in jobs}

    def users(self, jobs: Sequence[str], going: Collection[str]) -> list[tuple[str, str]]:
        return [(source, run) for source, run in self.store.jobs.users_of(jobs) if run not in going]

    def kept(self, run: Run) -> tuple[str, str] | None:
        """Why a run can't be removed, and what to type to change that; None if it can."""
        tag = next((tag for tag in self.store.tags.all() if tag.run == run.name), None)
        if tag:
            return f"has the tag ':{tag.name}'", f"dstack tag --delete {tag.name}"
        if not all(job.finished for job in self.store.jobs.of(run.name)):
            return "has not ended", f"dstack stop {run.name}"
        return None

    async def pages(self, runs: Sequence[str]) -> AsyncIterator[list[Removed]]:
        """Describe the removal of the runs with these names, a page at a time."""
        going = {*runs, *self.store.runs.hidden()}
        for page in batches(runs):
            yield self.told(page, going)
            await asyncio.sleep(0)

    def told(self, runs: Sequence[str], going: Collection[str]) -> list[Removed]:
        """Describe the removal of the runs with these names to users. `going` are all that are removed. `bytes` are
        those that become free."""
        own = [job for job in self.store.jobs.of_runs(runs) if job.cached_from is None]
        used = self.used(own, going)
        by_run = defaultdict[str, list[Job]](list)
        for job in own:
            by_run[job.run].append(job)
        return [
            Removed(
                run=run.name,
                workflow=run.workflow,
                submitted_at=run.submitted_at,
                bytes=sum(job.bytes for job in by_run[run.name] if job.id not in used),
                kept=[job.workflow for job in by_run[run.name] if job.id in used],
            )
            for run in self.store.runs.several(runs)
        ]


def batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield them a page at a time."""
    return (names[start : start + PAGE] for start in range(0, len(names), PAGE))


async def limit_events(store: Store) -> None:
    """Forget the oldest events, at the start and once per hour."""
    while True:
        store.events.trim(rfc3339(time.time() - OLDEST_EVENT), MOST_EVENTS)
        await asyncio.sleep(EVENTS_LATER)
