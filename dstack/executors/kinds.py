"""Which executor runs the jobs of which kind of runner."""

from __future__ import annotations

from functools import partial

from dstack.executors.docker.executor import DockerExecutor
from dstack.executors.docker.memory import Memory
from dstack.executors.executor import OpenExecutor


def executors() -> dict[str, OpenExecutor]:
    """The executors of a server by the kind of runner (see `Runner.kind`), one line each."""
    return {
        "docker": partial(DockerExecutor, Memory()),
    }
