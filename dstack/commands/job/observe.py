"""Observes a job on its host: its state, and its log byte for byte."""

from __future__ import annotations

from functools import partial

from msgspec import Struct, field, json

from dstack.commands.command import Command, Result
from dstack.decide import Claim, Container, ContainerState, Observed
from dstack.model.job.execution import origin
from dstack.model.runner.host_context import HostContext
from dstack.model.text.untrusted import MESSAGE, clean_line, whole
from dstack.render import script

LARGEST = 255
"""The largest exit code."""
STATES = {
    **dict.fromkeys(("created", "configured", "initialized"), ContainerState.CREATED),
    **dict.fromkeys(("running", "paused", "restarting", "stopping"), ContainerState.RUNNING),
    "removing": ContainerState.REMOVING,
}
"""What Docker and podman call the states of a container that has not ended yet."""


class InspectedState(Struct, rename="pascal"):
    """What `docker inspect` says about a container's state; podman writes the same."""

    status: str
    exit_code: int = 0
    out_of_memory: bool = field(default=False, name="OOMKilled")
    error: str | None = None


def observe(context: HostContext, attempt: str) -> Command[Observed]:
    """Read the exit file, the claim, the container, boot and Docker daemon, and the exit file again. Takes at most 30
    seconds: if Docker does not answer, the result says so."""
    return Command("observing the job", script("job/observe", context, attempt), partial(_observed, context.engine))


def _observed(engine: str, result: Result) -> Observed:
    said = result.values("exit", "claim", "container", "boot", "docker", "log_size")
    disks = [whole(said[disk]) * 1024 for disk in ("disk_free", "docker_disk_free") if said.get(disk)]
    return Observed(
        exit_code=_exit_code(whole(said["exit"])) if said["exit"] else None,
        told=bool(said.get("told")),
        asked="asked" in said,
        claim=Claim(said["claim"]),
        container=_container(said["container"]),
        engine=engine,
        silent=said["container"] == "silent",
        silence=said.get("silence", ""),
        log_size=whole(said["log_size"]),
        origin=origin(said),
        disk_free=min(disks, default=None),
    )


def _container(text: str) -> Container | None:
    if text in ("none", "silent"):
        return None
    state = json.decode(text, type=InspectedState)
    return Container(
        state=STATES.get(state.status, ContainerState.EXITED),
        exit_code=_exit_code(state.exit_code),
        out_of_memory=state.out_of_memory,
        error=" ".join(clean_line(state.error or "", MESSAGE).split()),
        paused=state.status == "paused",
    )


def _exit_code(number: int) -> int:
    """Return an exit code that a process can have. A job can write its exit file itself, and `dstack run` exits with
    the code, of which the system keeps the last eight bits: 256 would be a success."""
    return number if 0 <= number <= LARGEST else LARGEST


def follow(context: HostContext, attempt: str, offset: int) -> Command[bytes]:
    """Print the log's bytes from `offset` on, as they arrive, until the job ends or stdin is closed. It may end before
    it has printed everything: read the rest with `read_log` once the job is known to have ended."""
    return _log("following the log", "job/follow", context, attempt, offset)


def read_log(context: HostContext, attempt: str, offset: int) -> Command[bytes]:
    """Print the log's bytes from `offset` to its current end. Prints nothing if the log was removed."""
    return _log("reading the log", "job/read_log", context, attempt, offset)


def _log(name: str, template: str, context: HostContext, attempt: str, offset: int) -> Command[bytes]:
    if offset < 0:
        raise ValueError(f"the log offset {offset} is negative")
    return Command(name, script(template, context, attempt, first=offset + 1), lambda result: result.stdout)
