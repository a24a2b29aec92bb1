"""What a job's state on its host means. Pure: the order of truth is the exit file, then Docker, then nothing."""

from __future__ import annotations

import signal
from enum import Enum

from msgspec import Struct

from dstack.model.job import Ends
from dstack.model.job import Launch as Origin

RUNNING_STATES = frozenset({"running", "paused", "restarting", "stopping"})
OUT_OF_MEMORY = "out-of-memory"
FULL = 1024**2
"""A disk with fewer bytes than this is full."""
UNBEGUN_STATES = frozenset({"created", "configured", "initialized"})
"""Words of Docker and podman for a container that was made and not started."""


class Claim(str, Enum):
    """Whose `started` is: nobody's, the container's (it is a file), or the server's fence (a folder). It may be gone
    with all of the job's folder."""

    NONE = "none"
    GONE = "gone"
    CLAIMED = "claimed"
    FENCED = "fenced"


class Container(Struct, frozen=True, kw_only=True):
    """What `docker inspect` says of a container."""

    state: str
    exit_code: int = 0
    out_of_memory: bool = False
    error: str = ""


class Observed(Struct, frozen=True, kw_only=True):
    """A job as it was found on its host.

    `exit_code` is from a complete exit file, read after everything else. `container` is None for none, and says
    nothing when Docker is `silent`: then `silence` holds its words. `log_size` and `disk_free` in bytes, the latter
    None where it is not known: of the fuller of the disks for jobs' folders and for containers.
    """

    exit_code: int | None = None
    claim: Claim = Claim.NONE
    container: Container | None = None
    silent: bool = False
    silence: str = ""
    origin: Origin
    log_size: int = 0
    disk_free: int | None = None

    @property
    def unsettled(self) -> bool:
        """It failed, and its container has not quite ended: Docker can't say yet whether memory ran out."""
        return bool(self.exit_code) and self.container is not None and self.container.state in RUNNING_STATES


class Recorded(Struct, frozen=True):
    """A job as the server knows it. `stop` says that a user wants it to end; `waited`, that it was found created but
    not started before, longer ago than a launch takes."""

    launch: Origin | None = None
    stop: bool = False
    waited: bool = False


class Decision(Struct, frozen=True):
    """What follows. `exit_code` and `reason` say how a job ended; `reason` is one plain sentence for users. `cause`
    is what it may be retried for, where that is more than its exit code."""

    exit_code: int | None = None
    reason: str | None = None
    cause: str | None = None

    @property
    def ended(self) -> bool:
        """The container will do nothing more."""
        return isinstance(self, (Finished, Failed, Lost))

    @property
    def running(self) -> bool:
        """The container runs."""
        return isinstance(self, Running)

    @property
    def lost(self) -> bool:
        return isinstance(self, Lost)

    @property
    def launch(self) -> bool:
        return isinstance(self, Launch)

    @property
    def unknown(self) -> bool:
        return isinstance(self, Unknown)


class Launch(Decision, frozen=True):
    """It does not run, and its commands never began: launching it is safe."""


class Wait(Decision, frozen=True):
    """A launch is under way, or, with a wish to stop, the fence is to be set. Look again."""


class Running(Decision, frozen=True):
    """Its container runs."""


class Finished(Decision, frozen=True):
    """Its commands ended and said so, with `exit_code`."""


class Failed(Decision, frozen=True):
    """It ended without saying so itself."""


class Lost(Decision, frozen=True):
    """It ended through no fault of its own, and nobody knows how far it came."""


class Unknown(Decision, frozen=True):
    """Nobody can tell now. Keep the state, and ask again."""


def decide(recorded: Recorded, observed: Observed) -> Decision:
    """What the job's state on its host means (docs/how-it-works.md has the table)."""
    if observed.exit_code is not None:
        return _finished(observed.exit_code, observed)
    if observed.claim is Claim.FENCED:
        return _fenced(recorded)
    if observed.silent:
        return Unknown(reason=f"Docker does not answer on this host: {observed.silence or 'it says nothing'}")
    state = observed.container.state if observed.container else None
    if state in RUNNING_STATES:
        return Running()
    if observed.claim is Claim.GONE and recorded.launch is not None:
        return _vanished(recorded)
    if observed.claim in (Claim.NONE, Claim.GONE):
        return _unbegun(recorded, observed, state)
    return _over(recorded, observed)


def _finished(code: int, observed: Observed) -> Decision:
    """The commands ended with this code, and perhaps not through their own fault."""
    if code and observed.container and observed.container.out_of_memory:
        words = "out of memory: the kernel killed a process of the job"
        after = "" if code == 137 else f", which then ended with exit code {code}"
        return Finished(code, words + after, OUT_OF_MEMORY)
    if code and observed.disk_free is not None and observed.disk_free < FULL:
        return Finished(code, f"exit code {code}, and the host's disk is full: {observed.disk_free} bytes are free")
    return Finished(code)


def _fenced(recorded: Recorded) -> Decision:
    if recorded.stop:
        return Failed(Ends.STOPPED, "stopped before its commands began")
    return Lost(Ends.DSTACK, "withdrawn before its commands began")


def _vanished(recorded: Recorded) -> Decision:
    """It was launched, and nothing on the host says how far it came."""
    if recorded.stop:
        return Failed(Ends.STOPPED, "stopped; its folder was removed from the host")
    return Lost(Ends.DSTACK, "its folder was removed from the host while it ran")


def _unbegun(recorded: Recorded, observed: Observed, state: str | None) -> Decision:
    """Nothing runs, and nothing ever did."""
    if recorded.stop:
        return Wait()
    if state in UNBEGUN_STATES and not recorded.waited:
        return Wait()
    container = observed.container
    if state is None or container is None or state in UNBEGUN_STATES or _interrupted(recorded, observed):
        return Launch()
    said = f": {container.error}" if container.error else ""
    return Failed(Ends.DSTACK, f"the container ended with code {container.exit_code} before it could begin{said}")


def _over(recorded: Recorded, observed: Observed) -> Decision:
    """The commands began, nothing runs any more, and there is no exit file."""
    interrupted = _interrupted(recorded, observed)
    if interrupted:
        return Lost(Ends.DSTACK, interrupted)
    container = observed.container
    if container is None or container.state in UNBEGUN_STATES or container.state == "removing":
        if recorded.stop:
            return Failed(Ends.STOPPED, "stopped; its container was removed")
        return Lost(Ends.DSTACK, "the container was removed from outside while it ran")
    if recorded.stop:
        return Failed(Ends.STOPPED, "stopped; it did not end within its grace period, and was killed")
    return _died(container)


def _interrupted(recorded: Recorded, observed: Observed) -> str | None:
    """What happened to the host or its Docker since the launch, if anything is known to have."""
    before, now = recorded.launch, observed.origin
    if before is None:
        return None
    if before.boot and now.boot and before.boot != now.boot:
        return "the host restarted while the job ran"
    if set(before.docker.split()) - set(now.docker.split()):
        return "Docker was restarted on the host, which ended the container"
    return None


def _died(container: Container) -> Decision:
    """The container ended on its own, and left no exit file."""
    code = container.exit_code
    said = f": {container.error}" if container.error else ""
    if container.out_of_memory:
        return Failed(code or Ends.DSTACK, "out of memory: the kernel killed the container", OUT_OF_MEMORY)
    if code == 0:
        return Failed(Ends.DSTACK, "the container ended without leaving a result; its disk may be full")
    if code == 128 + signal.SIGPIPE:
        return Failed(code, "the log could not be written; the host's disk may be full")
    if code > 128:
        return Failed(code, f"the container was killed from outside by signal {code - 128}{said}")
    return Failed(code, f"the container ended with code {code} without leaving a result; its disk may be full{said}")
