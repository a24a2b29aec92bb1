"""A Docker that hangs is waited for: no launch or stop fails because of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dstack.commands.command import Command, Result
from dstack.errors import CommandError, HostError, HostUnreachableError
from dstack.executors.docker.executor import DockerExecutor
from dstack.executors.docker.failures import not_started
from dstack.executors.docker.image_pulls import ImagePulls
from dstack.hosts.recording import RecordingHost
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Address, Runner

CONTEXT = HostContext(HostLayout("~/.dstack-host", "m", "s"), "docker", "")


@pytest.mark.parametrize(
    ("status", "stderr", "waits"),
    [
        (124, "", True),
        (124, "Terminated", True),
        (1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", True),
        (125, "invalid reference format", False),
        (1, "", False),
    ],
)
def test_a_launch_waits_for_a_docker_that_does_not_answer(status: int, stderr: str, waits: bool) -> None:
    error = not_started(CommandError("launching the job", status, stderr), runner="lab", image="busybox", gpus=())

    assert isinstance(error, HostUnreachableError) == waits
    if waits:
        assert error.message.startswith("Docker on lab does not answer: ")
        assert error.hint == "dstack runners check lab"
    else:
        assert isinstance(error, HostError)


def test_a_stop_waits_too() -> None:
    def hang(command: Command[Any]) -> Result:
        return Result(124, b"", b"")

    executor = DockerExecutor(ImagePulls(), Runner(name="lab", address=Address()), RecordingHost(hang), CONTEXT)  # type: ignore[arg-type]

    with pytest.raises(HostUnreachableError, match="Docker on lab does not answer: a command of it has not ended"):
        asyncio.run(executor.stop("abc", 10))
