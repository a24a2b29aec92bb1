"""The queue and what is held, as the scheduler sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from dstack.engine.capacity import Lease
from dstack.engine.schedule import Waiting
from dstack.model import mounts
from dstack.model.job import Job, Run
from dstack.model.resources import ask_of
from dstack.model.status import Status
from dstack.model.times import seconds
from dstack.store import Store

HAS_CODE = 1
HAS_ARTIFACTS = 2
HAS_IMAGE = 4
"""How much it is worth to a job that a runner has something: an image is the largest, and comes from furthest."""


class Queue:
    """Reads jobs as the scheduler wants them. A run never changes, so that it is read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runs: dict[str, Run] = {}

    def run(self, name: str) -> Run:
        """The run of that name."""
        if name not in self.runs:
            self.runs[name] = self.store.runs.require(name)
        return self.runs[name]

    def forget(self, unfinished: Sequence[Job]) -> None:
        """Keep only the runs that are needed again."""
        names = {job.run for job in unfinished}
        self.runs = {name: run for name, run in self.runs.items() if name in names}

    def waiting(self, jobs: Sequence[Job], promises: Mapping[str, str]) -> list[Waiting]:
        """Jobs that may be placed. `promises` says where room is made for one."""
        known = Known(self.store)
        items = [self.item(job, self.run(job.run), known) for job in jobs]
        return [replace(item, room_on=promises[item.id]) if item.id in promises else item for item in items]

    def item(self, job: Job, run: Run, known: Known | None = None) -> Waiting:
        """One job that may be placed. `known` says what lies where."""
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
            near=known.near(job, run) if known else {},
        )

    def leases(self, jobs: Sequence[Job]) -> list[Lease]:
        """What jobs hold that have a runner."""
        return [
            Lease(
                job=job.id,
                runner=job.runner,
                run=job.run,
                user=self.run(job.run).user,
                gpus=job.gpus,
                ask=ask_of(job.definition.resources),
                since=seconds(job.started_at or job.placed_at or job.submitted_at),
                priority=job.priority,
                preemptible=job.definition.preemptible,
                ending=ending(job),
            )
            for job in jobs
            if job.runner
        ]


def ending(job: Job) -> bool:
    """Whether what it holds will be free before long."""
    return bool(job.stop or job.preempted or job.expired) or job.status is Status.UPLOADING


class Known:
    """Which runners have what, as far as the server knows: for one pass over the queue."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.names = [runner.name for runner in store.runners.all()]
        self.images = store.jobs.images()
        self.trees: dict[tuple[str, str], set[str]] = {}

    def near(self, job: Job, run: Run) -> dict[str, int]:
        """How much of what a job needs is on which runner."""
        found: dict[str, int] = {}
        for name in self.images.get(job.image, ()):
            found[name] = found.get(name, 0) + HAS_IMAGE
        for source in job.dependencies.values():
            made = self.store.jobs.require(self.store.jobs.require(source).source)
            kept = self.store.kept.get(made.id)
            runner = kept.runner if kept else None if made.discarded else made.runner
            if runner:
                found[runner] = found.get(runner, 0) + HAS_ARTIFACTS
        for name in self.names:
            if run.snapshot.tree in self.shipped(name, run.snapshot.repo):
                found[name] = found.get(name, 0) + HAS_CODE
        return found if len(set(found.values())) > 1 or len(found) < len(self.names) else {}

    def shipped(self, runner: str, repo: str) -> set[str]:
        """The objects of a repository that were sent to a runner."""
        if (runner, repo) not in self.trees:
            self.trees[runner, repo] = set(self.store.shipped.of(runner, repo))
        return self.trees[runner, repo]
