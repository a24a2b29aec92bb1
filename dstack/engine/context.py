"""What the parts of the engine share."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from dstack.artifacts.store import URL_LIFETIME
from dstack.engine.artifact_storage import ArtifactStorage
from dstack.engine.events import Events
from dstack.engine.fleet.runners import Fleet
from dstack.executors.executor import OpenExecutor
from dstack.executors.kinds import executors
from dstack.mirror.mirror import Mirror
from dstack.model.paths import ServerLayout
from dstack.store.store import Store


@dataclass
class Context:
    """The store, the fleet, and the events. `executors` has one entry per kind of runner. `shipping` has one lock per
    runner and repository, so that a pack is sent once however many jobs need it; `clearing` has one per ended job. On a
    runner in `unsure`, a job that was aborted while the runner did not answer may still be running. Presigned URLs are
    valid for `url_lifetime` seconds."""

    layout: ServerLayout
    store: Store
    fleet: Fleet
    events: Events
    executors: dict[str, OpenExecutor] = field(default_factory=executors)
    shipping: dict[tuple[str, str], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    clearing: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    unsure: set[str] = field(default_factory=set)
    spares: set[asyncio.Task[None]] = field(default_factory=set)
    url_lifetime: int = URL_LIFETIME
    artifacts: ArtifactStorage = field(init=False)

    def __post_init__(self) -> None:
        self.artifacts = ArtifactStorage(self.store, self.layout.artifacts, self.url_lifetime)
        self.store.database.committed = self.events.publish_all

    def mirror(self, repo: str) -> Mirror:
        """The server's copy of a repository's objects."""
        return Mirror(self.layout.mirror(repo))
