"""What the parts of the engine share: the state of a server, and bells that ring when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from dstack.artifacts.store import URL_LIFETIME
from dstack.engine.artifact_storage import ArtifactStorage
from dstack.engine.fleet.runners import Fleet
from dstack.engine.supervisor import Supervisor
from dstack.errors import DstackError
from dstack.executors.executor import OpenExecutor
from dstack.executors.kinds import executors
from dstack.mirror.mirror import Mirror
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason, failed_with
from dstack.model.paths import ServerLayout
from dstack.model.text.units import rfc3339
from dstack.store.store import Store

log = logging.getLogger("dstack.engine")

ANYTHING = ""
"""In place of a run: every event of the log."""


class Events:
    """One bell per run; a listener sleeps until it rings. The store rings it when it commits a change, and the drive
    when log bytes arrive. A ring without a listener is lost: take the bell first, then look, then wait."""

    def __init__(self) -> None:
        self.events: dict[str, asyncio.Event] = {}

    def subscribe(self, run: str) -> asyncio.Event:
        """Return the bell that rings at the run's next change."""
        return self.events.setdefault(run, asyncio.Event())

    def publish(self, runs: Iterable[str]) -> None:
        """Report that something about these runs changed."""
        for run in runs:
            if run in self.events:
                self.events.pop(run).set()


@dataclass
class Context:
    """`executors` has one entry per kind of runner. `locks` are for what is done once however many jobs need it.
    `tasks` has what runs until the engine closes. Presigned URLs are valid for `url_lifetime` seconds. `silent` maps
    the id of a job to when its runner fell silent (monotonic, seconds)."""

    layout: ServerLayout
    store: Store
    fleet: Fleet
    events: Events
    executors: dict[str, OpenExecutor] = field(default_factory=executors)
    locks: dict[tuple[str, ...], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    tasks: Supervisor = field(default_factory=Supervisor)
    url_lifetime: int = URL_LIFETIME
    silent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.artifacts = ArtifactStorage(self.store, self.layout.artifacts, self.url_lifetime)
        self.store.database.committed = self.events.publish
        self.fleet.tasks = self.tasks
        self.tasks.changed = lambda: self.events.publish(list(self.events.events))

    def mirror(self, repo: str) -> Mirror:
        """The server's copy of a repository's objects."""
        return Mirror(self.layout.mirror(repo))

    def told(self, job: Job) -> Job:
        """The job with the reason why its drive can't go on, which may be that nothing can be recorded."""
        trouble = None if job.finished else self.tasks.resting(drive_of(job.id))
        if trouble is None:
            return job
        code = failed_with(trouble.error if isinstance(trouble.error, DstackError) else DstackError(trouble.words))
        return replace(job, reason=Reason(code, f"since {rfc3339(trouble.since)}: {trouble.words}"))


def drive_of(job_id: str) -> str:
    """The name of the task that drives a job."""
    return f"job {job_id}"
