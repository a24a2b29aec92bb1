"""The objects that the routes of the HTTP API use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.retention.retention import Retention
from dstack.engine.submission.submit import Submitter
from dstack.server.registrations import RegistrationService
from dstack.server.runner_service import RunnerService
from dstack.store.store import Store


@dataclass
class Parts:
    """The server's parts. `quit` stops the server; `url` is where it listens; `started` is a Unix time."""

    context: Context
    engine: Engine
    runner_service: RunnerService
    registrations: RegistrationService
    submitter: Submitter
    url: str
    started: float
    quit: Callable[[], None]

    @property
    def store(self) -> Store:
        return self.context.store

    @cached_property
    def retention(self) -> Retention:
        """The one object that removes runs: it removes one at a time."""
        return Retention(self.context)
