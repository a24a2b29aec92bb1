"""Removes runs, with everything that belongs to them, and old events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence

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
        return await self.remove(runs)

    def prunable(self, keep_last: int | None, older_than: float | None) -> list[Run]:
        """The runs that a rule removes, oldest first. It keeps the newest `keep_last` per repository and workflow, runs
        that ended within `older_than` seconds, and runs that are unfinished or have a tag. Without a rule, none."""
        if keep_last is None and older_than is None:
            return []
        kept: Counter[tuple[str, str]] = Counter()
        found = []
        for run in self.store.runs.newest(-1):
            kept[run.snapshot.repo, run.workflow] += 1
            recent = keep_last is not None and kept[run.snapshot.repo, run.workflow] <= keep_last
            young = older_than is not None and time.time() - self.ended(run) < older_than
            if not (recent or young or self.kept(run)):
                found.append(run)
        return found[::-1]

    async def remove(self, runs: Sequence[Run]) -> list[Removed]:
        """Remove runs, and whatever is left of earlier ones and no longer needed."""
        removed = {each.run: each for each in self.told(runs)}
        for run in runs:
            self.store.runs.hide(run.name)
        for run_name, what in await self.complete():
            if run_name in removed:
                removed[run_name].stays.append(what)
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
            if any(not self.used(job) and not self.on_host(job) for job in self.hidden()):
                await self.complete()

    def hidden(self) -> list[Job]:
        """What is left of the jobs of removed runs."""
        return [job for run in self.store.runs.hidden() for job in self.store.jobs.of(run)]

    async def remove_job(self, job: Job) -> bool:
        """Remove a job and what it left, unless another job uses it. Returns whether the job is gone: one whose runner
        still has to be cleaned is removed by a later call."""
        if self.used(job):
            return False
        if job.cached_from is None:
            await self.remove_artifacts(job)
        self.store.logs.remove(job.id)
        self.store.metrics.remove(job.id)
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

    def used(self, job: Job, going: Collection[str] = ()) -> bool:
        """Whether another job uses or awaits the job's log and artifacts. Jobs of the runs in `going` don't count."""
        waiting = any(job.id in (each.shares, *each.dependencies.values()) for each in self.store.jobs.unfinished())
        users = (self.store.jobs.require(user) for user in self.store.jobs.users_of(job.id))
        return waiting or any(user.run not in going for user in users)

    def kept(self, run: Run) -> tuple[str, str] | None:
        """Why a run can't be removed, and what to type to change that; None if it can."""
        tag = next((tag for tag in self.store.tags.all() if tag.run == run.name), None)
        if tag:
            return f"has the tag ':{tag.name}'", f"dstack tag --delete {tag.name}"
        if not all(job.finished for job in self.store.jobs.of(run.name)):
            return "has not ended", f"dstack stop {run.name}"
        return None

    def ended(self, run: Run) -> float:
        """When it ended, in seconds since the epoch."""
        times = [job.finished_at for job in self.store.jobs.of(run.name) if job.finished_at]
        return max(map(seconds, times), default=seconds(run.submitted_at))

    def told(self, runs: Sequence[Run]) -> list[Removed]:
        """Describe the removal of these runs to users. `bytes` are those that become free."""
        going = {run.name for run in runs} | set(self.store.runs.hidden())
        removed = []
        for run in runs:
            own = [job for job in self.store.jobs.of(run.name) if job.cached_from is None]
            kept = [job.workflow for job in own if self.used(job, going)]
            size = sum(job.bytes for job in own if job.workflow not in kept)
            told = Removed(run=run.name, workflow=run.workflow, submitted_at=run.submitted_at, bytes=size, kept=kept)
            removed.append(told)
        return removed


async def limit_events(store: Store) -> None:
    """Forget the oldest events, at the start and once per hour."""
    while True:
        store.events.trim(rfc3339(time.time() - OLDEST_EVENT), MOST_EVENTS)
        await asyncio.sleep(EVENTS_LATER)
