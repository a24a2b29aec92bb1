"""The queue and the leases, as the scheduler sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from dstack.model.job.job import Job, Run
from dstack.model.job.resources import ask_of
from dstack.model.job.status import Status
from dstack.model.runner import mounts
from dstack.model.text.units import seconds
from dstack.scheduling.types import Lease, Waiting
from dstack.store.store import Store

HAS_CODE = 1
HAS_ARTIFACTS = 2
HAS_IMAGE = 4
"""What it is worth to a job that a runner already has something: an image is the largest and takes longest to fetch."""


class Queue:
    """Converts jobs for the scheduler. Runs never change, so each is read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs: dict[str, Run] = {}
        self.items: dict[str, tuple[Job, Waiting]] = {}
        self.held: dict[str, tuple[Job, Lease]] = {}

    def run(self, name: str) -> Run:
        if name not in self.runs:
            self.runs[name] = self.store.runs.require(name)
        return self.runs[name]

    def forget(self, unfinished: Sequence[Job]) -> None:
        """Drop the runs of finished jobs."""
        names = {job.run for job in unfinished}
        if len(names) < len(self.runs):
            self.runs = {name: run for name, run in self.runs.items() if name in names}

    def waiting(self, jobs: Sequence[Job], promises: Mapping[str, str]) -> list[Waiting]:
        """Jobs that may be placed. `promises` maps a job to the runner on which it is promised room."""
        known, cached, self.items = Known(self.store), self.items, {}
        for job in jobs:
            before, item = cached.get(job.id, (None, None))
            if item is None or before is not job:
                item = self.item(job, self.run(job.run))
            near, room = known.near(job, self.run(job.run)), promises.get(job.id)
            if item.near != near or item.room_on != room:
                item = replace(item, near=near, room_on=room)
            self.items[job.id] = job, item
        return [item for _, item in self.items.values()]

    def item(self, job: Job, run: Run) -> Waiting:
        """One job that may be placed, without what depends on runners."""
        return Waiting(
            id=job.id,
            ask=ask_of(job.definition.resources),
            pin=run.pin,
            runners=job.definition.runners,
            mounts=tuple(mounts.parse(text).source for text in job.definition.mounts),
            run=job.run,
            user=run.user,
            priority=job.priority,
            submitted=seconds(job.submitted_at),
        )

    def leases(self, jobs: Sequence[Job]) -> list[Lease]:
        cached, self.held = self.held, {}
        for job in jobs:
            if job.runner:
                before, lease = cached.get(job.id, (None, None))
                self.held[job.id] = job, lease if lease and before is job else self.lease(job, job.runner)
        return [lease for _, lease in self.held.values()]

    def lease(self, job: Job, runner: str) -> Lease:
        return Lease(
            job=job.id,
            runner=runner,
            run=job.run,
            user=self.run(job.run).user,
            gpus=job.gpus,
            ask=ask_of(job.definition.resources),
            since=seconds(job.started_at or job.placed_at or job.submitted_at),
            priority=job.priority,
            preemptible=job.definition.preemptible,
            ending=bool(job.stop or job.preempted_by or job.expired) or job.status is Status.UPLOADING,
        )


class Known:
    """Which runners have which code, images and artifacts during a pass over the queue, as far as the server knows."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runners = len(store.runners.all())
        self.images = store.jobs.images()
        self.keepers: dict[str, str | None] = {}
        self.found: dict[tuple[str, str, str, tuple[str, ...]], dict[str, int]] = {}

    def near(self, job: Job, run: Run) -> dict[str, int]:
        """How much of what a job needs each runner has; empty if all have the same."""
        makers = tuple(filter(None, [self.keeper(source) for source in job.dependencies.values()]))
        key = job.image, run.snapshot.repo, run.snapshot.tree, makers
        if key not in self.found:
            self.found[key] = self.look(*key)
        return self.found[key]

    def keeper(self, source: str) -> str | None:
        """The runner that still has what a job made."""
        if source not in self.keepers:
            made = self.store.jobs.require(self.store.jobs.require(source).source)
            kept = self.store.retained_artifacts.get(made.id)
            self.keepers[source] = kept.runner if kept else None if made.discarded else made.runner
        return self.keepers[source]

    def look(self, image: str, repo: str, tree: str, makers: tuple[str, ...]) -> dict[str, int]:
        found: dict[str, int] = {}
        for names, worth in (
            (self.images.get(image, ()), HAS_IMAGE),
            (makers, HAS_ARTIFACTS),
            (self.store.known_objects.holders(repo).get(tree, ()), HAS_CODE),
        ):
            for name in names:
                found[name] = found.get(name, 0) + worth
        return found if len(set(found.values())) > 1 or len(found) < self.runners else {}
