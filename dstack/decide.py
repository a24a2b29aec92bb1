"""What a job's state on its runner means. Pure. The order of truth: the exit file, then the engine that holds the
container (Docker, podman, ...), then nothing."""

from __future__ import annotations

import signal
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from dstack.model.job.job import ExitCode, Origin
from dstack.model.job.reasons import Reason, ReasonCode

OUT_OF_MEMORY = "out-of-memory"
UNCLAIMED = 125
"""How `entry.sh` exits if it can't create `started`."""
FULL = 1024**2
"""A disk with fewer free bytes than this counts as full."""


class ContainerState(str, Enum):
    """CREATED: not started yet. RUNNING: also if paused, or about to end. EXITED: all of it has ended."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    REMOVING = "removing"


class Claim(str, Enum):
    """Who created `started`: nobody, the container (a file), or the server as a fence (a folder). GONE: the job's whole
    folder is missing."""

    NONE = "none"
    GONE = "gone"
    CLAIMED = "claimed"
    FENCED = "fenced"


class Container(Struct, frozen=True, kw_only=True):
    """What the engine that holds a container says about it."""

    state: ContainerState
    exit_code: int = 0
    out_of_memory: bool = False
    error: str = ""
    paused: bool = False


class Observed(Struct, frozen=True, kw_only=True):
    """A job as found on its runner. `exit_code` comes from a complete exit file, read after everything else. `told`:
    its container got a SIGTERM before its commands had ended; `asked`: the server had told it to end.
    `container` is None if there is none; it means nothing when the engine is `silent`, and `silence` then holds the
    error; `engine` is its name, for people. `log_size` is in bytes. `disk_free` is in bytes, of the fuller of the disks
    for job folders and for containers; None if unknown."""

    exit_code: int | None = None
    told: bool = False
    asked: bool = False
    claim: Claim = Claim.NONE
    container: Container | None = None
    engine: str = "the container engine"
    silent: bool = False
    silence: str = ""
    origin: Origin
    log_size: int = 0
    disk_free: int | None = None

    @property
    def unsettled(self) -> bool:
        """It failed, but its container is still exiting: the engine can't yet say whether memory ran out."""
        return bool(self.exit_code) and self.container is not None and self.container.state is ContainerState.RUNNING


class Recorded(Struct, frozen=True):
    """A job as the server knows it. `stop`: a user wants it to end. `waited`: its container has been created but not
    started for longer than a launch takes."""

    launch: Origin | None = None
    stop: bool = False
    waited: bool = False


class Decision(Struct, frozen=True):
    """What follows. `exit_code` and `reason` say how a job ended; `reason` is one plain sentence for users. `cause` is
    what a retry rule may name, if that is more than the exit code. `asked`: dstack had told it to end before it did."""

    exit_code: int | None = None
    reason: Reason | None = None
    cause: str | None = None
    asked: bool = False

    @property
    def ended(self) -> bool:
        """The container has ended for good."""
        return isinstance(self, (Finished, Failed, Lost))

    @property
    def running(self) -> bool:
        """The container is running."""
        return isinstance(self, Running)

    @property
    def lost(self) -> bool:
        return isinstance(self, Lost)

    @property
    def launch(self) -> bool:
        return isinstance(self, LaunchAgain)

    @property
    def unknown(self) -> bool:
        return isinstance(self, Unknown)


class LaunchAgain(Decision, frozen=True):
    """Its commands never started, and nothing is running: it is safe to launch."""


class Wait(Decision, frozen=True):
    """A launch is in progress or, for a job to stop, the fence still has to be set. Look again."""


class Running(Decision, frozen=True):
    """Its container is running."""


class Finished(Decision, frozen=True):
    """Its commands ended and recorded their `exit_code`."""


class Failed(Decision, frozen=True):
    """It ended without recording an exit code."""


class Lost(Decision, frozen=True):
    """It ended through no fault of its own, and nobody knows how far it got."""


class Unknown(Decision, frozen=True):
    """The state can't be known now. Keep it, and ask again."""


def decide(recorded: Recorded, observed: Observed) -> Decision:
    """Return what the job's state on its runner means (docs/how-it-works.md has the table)."""
    decision = _decide(recorded, observed)
    return replace(decision, asked=True) if observed.asked and decision.ended else decision


def _decide(recorded: Recorded, observed: Observed) -> Decision:
    if observed.exit_code is not None:
        foreign = _told_by_others(recorded, observed)
        return Lost(ExitCode.DSTACK, foreign) if foreign else _finished(observed.exit_code, observed)
    if observed.claim is Claim.FENCED:
        lost = "withdrawn before its commands started"
        return _gone(recorded, "stopped before its commands started", ReasonCode.INTERNAL_ERROR, lost)
    if observed.silent:
        text = f"{observed.engine} on this runner does not answer: {observed.silence or 'no error message'}"
        return Unknown(reason=Reason(ReasonCode.RUNNER_UNREACHABLE, text))
    state = observed.container.state if observed.container else None
    if state is ContainerState.RUNNING:
        return Running()
    if observed.claim is Claim.GONE and recorded.launch is not None:
        lost = "its folder was removed from the runner while it was running"
        return _gone(recorded, "stopped; its folder was removed from the runner", ReasonCode.LOST_REMOVED, lost)
    if observed.claim in (Claim.NONE, Claim.GONE):
        return _unbegun(recorded, observed, state)
    return _over(recorded, observed)


def _told_by_others(recorded: Recorded, observed: Observed) -> Reason | None:
    """Why the commands were told to end, if the server did not ask for it. Whatever their code is then, 0 included,
    nobody knows how far they got. Older versions did not note the signal: then the code has to tell."""
    if recorded.stop or observed.asked:
        return None
    interrupted = _interrupted(recorded, observed)
    if not observed.told:
        return interrupted if observed.exit_code == 128 + signal.SIGTERM else None
    if interrupted:
        return interrupted
    if observed.silent:
        text = f"{observed.engine} or the runner is stopping or restarting, which ended the container"
        return Reason(ReasonCode.LOST_DOCKER_RESTARTED, text)
    text = f"the container was told to end, but not by dstack: by a {observed.engine.lower()} stop, for example"
    return Reason(ReasonCode.LOST_STOPPED, text)


def _finished(code: int, observed: Observed) -> Decision:
    """The commands ended with this code, perhaps through no fault of their own."""
    if code and observed.container and observed.container.out_of_memory:
        words = "out of memory: the kernel killed a process of the job"
        after = "" if code == 137 else f", which then ended with exit code {code}"
        return Finished(code, Reason(ReasonCode.OUT_OF_MEMORY, words + after), OUT_OF_MEMORY)
    if code and observed.disk_free is not None and observed.disk_free < FULL:
        text = f"exit code {code}, and the runner's disk is full: {observed.disk_free} bytes are free"
        return Finished(code, Reason(ReasonCode.DISK_FULL, text))
    return Finished(code)


def _unbegun(recorded: Recorded, observed: Observed, state: ContainerState | None) -> Decision:
    """Nothing is running, and nothing ever was."""
    if recorded.stop or (state is ContainerState.CREATED and not recorded.waited):
        return Wait()
    container = observed.container
    if state is None or container is None or state is ContainerState.CREATED or _interrupted(recorded, observed):
        return LaunchAgain()
    if container.exit_code == UNCLAIMED and not container.error:
        return _full(UNCLAIMED, "the container could not make a file in its folder; the runner's disk may be full")
    error = f": {container.error}" if container.error else ""
    text = f"the container exited with code {container.exit_code} before it could start{error}"
    return Failed(ExitCode.DSTACK, Reason(ReasonCode.CONTAINER_NOT_STARTED, text))


def _over(recorded: Recorded, observed: Observed) -> Decision:
    """The commands started, nothing is running now, and there is no exit file."""
    if foreign := _interrupted(recorded, observed) or _told_by_others(recorded, observed):
        return Lost(ExitCode.DSTACK, foreign)
    container = observed.container
    if container is None or container.state in (ContainerState.CREATED, ContainerState.REMOVING):
        lost = "the container was removed while it was running, but not by dstack"
        return _gone(recorded, "stopped; its container was removed", ReasonCode.LOST_REMOVED, lost)
    if recorded.stop and observed.asked:
        return _stopped("stopped; it did not exit within its grace period and was killed")
    return _died(container)


def _interrupted(recorded: Recorded, observed: Observed) -> Reason | None:
    """What is known to have happened to the machine or its container engine since the launch."""
    before, now = recorded.launch, observed.origin
    if before is None:
        return None
    if before.boot and now.boot and before.boot != now.boot:
        return Reason(ReasonCode.LOST_HOST_RESTARTED, "the runner restarted while the job was running")
    if before.engine and not set(before.engine.split()) & set(now.engine.split()):
        did = "restarted" if now.engine else "was stopped"
        so = "and the container is gone" if now.engine and observed.container is None else "which ended the container"
        text = f"{observed.engine} {did} on the runner, {so}"
        return Reason(ReasonCode.LOST_DOCKER_RESTARTED, text)
    return None


def _died(container: Container) -> Decision:
    """The container ended on its own and left no exit file."""
    code = container.exit_code
    error = f": {container.error}" if container.error else ""
    if container.out_of_memory:
        reason = Reason(ReasonCode.OUT_OF_MEMORY, "out of memory: the kernel killed the container")
        return Failed(code or ExitCode.DSTACK, reason, OUT_OF_MEMORY)
    if code == 0:
        return _full(ExitCode.DSTACK, "the container exited without recording a result; the runner's disk may be full")
    if code == 128 + signal.SIGPIPE:
        return _full(code, "the log could not be written; the runner's disk may be full")
    if code > 128:
        text = f"the container was killed by signal {code - 128}, but not by dstack{error}"
        return Failed(code, Reason(ReasonCode.KILLED, text))
    why = f"the container exited with code {code} without recording a result; the runner's disk may be full{error}"
    return _full(code, why)


def _full(code: int, text: str) -> Failed:
    return Failed(code, Reason(ReasonCode.DISK_FULL, text))


def _stopped(text: str) -> Failed:
    return Failed(ExitCode.STOPPED, Reason(ReasonCode.STOPPED_BY_USER, text))


def _gone(recorded: Recorded, stopped: str, code: ReasonCode, lost: str) -> Decision:
    """Nothing on the runner says how far it got."""
    return _stopped(stopped) if recorded.stop else Lost(ExitCode.DSTACK, Reason(code, lost))
