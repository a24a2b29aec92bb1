"""Observes a job on its host."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dstack.commands import answer
from dstack.commands.command import Command, Result
from dstack.decide import Claim, Container, ContainerState, Observed
from dstack.errors import CommandError
from dstack.model.job.job import Origin
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.render import script

NAME = "observing the job"
STATES = {
    **dict.fromkeys(("created", "configured", "initialized"), ContainerState.CREATED),
    **dict.fromkeys(("running", "paused", "restarting", "stopping"), ContainerState.RUNNING),
    "removing": ContainerState.REMOVING,
}
"""What Docker and podman call the states of a container that has not ended yet."""


def observe(context: HostContext, attempt: str) -> Command[Observed]:
    """Read the exit file, the claim, the container, boot and Docker daemon, and the exit file again.

    Takes at most 30 seconds: if Docker does not answer, the result says so.
    """
    folder = context.layout.job(folder_name(attempt))
    return Command(NAME, script("job/observe", context, folder=folder, name=container(attempt)), _observed)


def _observed(result: Result) -> Observed:
    said = answer.values(NAME, result, "exit", "claim", "container", "boot", "docker", "log_size")
    try:
        return Observed(
            exit_code=int(said["exit"]) if said["exit"] else None,
            claim=Claim(said["claim"]),
            container=_container(said["container"]),
            engine="Docker",
            silent=said["container"] == "silent",
            silence=said.get("silence", ""),
            origin=Origin(said["boot"], said["docker"]),
            log_size=int(said["log_size"]),
            disk_free=_free(said),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CommandError(NAME, result.exit_status, f"the host's answer can't be parsed: {problem}") from problem


def _free(said: Mapping[str, str]) -> int | None:
    """Return the free bytes on the fuller of the disks that the job can write to."""
    found = [int(said[disk]) * 1024 for disk in ("disk_free", "docker_disk_free") if said.get(disk)]
    return min(found, default=None)


def _container(text: str) -> Container | None:
    """Parse the JSON of `docker inspect`'s State, which podman writes the same way."""
    if text in ("none", "silent"):
        return None
    state = json.loads(text)
    return Container(
        state=STATES.get(state["Status"], ContainerState.EXITED),
        exit_code=state.get("ExitCode", 0),
        out_of_memory=state.get("OOMKilled", False),
        error=" ".join((state.get("Error") or "").split()),
    )
