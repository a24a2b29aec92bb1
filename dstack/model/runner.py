"""A machine that runs jobs: how to reach it, what it has, and whether it may be used."""

from __future__ import annotations

from msgspec import Struct

DEFAULT_ROOT = "~/.dstack-host"


class Gpu(Struct, frozen=True):
    """One GPU. `memory` in bytes; `vendor` is nvidia or amd; `driver` is its version; `mig` has the profiles of the
    devices that MIG splits it into, None for one that is whole; `node` is what an AMD GPU is called below /dev/dri, ""
    where that is not known; `trouble` is what the driver says instead of what it has, where it is broken."""

    index: int
    name: str = ""
    memory: int = 0
    uuid: str = ""
    driver: str = ""
    vendor: str = "nvidia"
    mig: tuple[str, ...] | None = None
    node: str = ""
    trouble: str = ""

    @property
    def usable(self) -> bool:
        """Whether it can be given to a job: it works and is whole, and it is known how."""
        return not self.trouble and self.mig is None and (self.vendor == "nvidia" or bool(self.node))


class Address(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to reach a machine. `host` is a name, an address or an alias of ~/.ssh/config; None for this machine
    without SSH. What is left out comes from ~/.ssh/config, else from ssh's own defaults.
    """

    host: str | None = None
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    jump: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `[user@]host[:port]`; an IPv6 address with a port stands in brackets. ValueError for anything else."""
        user, at, place = text.rpartition("@")
        host, colon, port = place.rpartition(":")
        if not colon or (":" in host and not host.endswith("]")):
            host, port = place, ""
        elif not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} has a port that is not a number from 1 to 65535")
        if (at and not user) or not (host := host.strip("[]")) or set(host) & set("/@ \t\n"):
            raise ValueError(f"{text!r} is not [user@]host[:port]")
        return cls(host=host, user=user or None, port=int(port) if port else None)

    @property
    def local(self) -> bool:
        """This machine, without SSH."""
        return self.host is None

    def __str__(self) -> str:
        if self.host is None:
            return "local"
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{user}{host}:{self.port}" if self.port else f"{user}{host}"


class Finding(Struct, frozen=True):
    """Something about a machine that its owner should know: what it is, why it matters, and what to type about it.
    `blocking`: no job can run there until it is mended."""

    name: str
    what: str
    why: str
    fix: str
    blocking: bool = False


class Facts(Struct, frozen=True, kw_only=True):
    """What a probe found. Sizes in bytes; `docker` and `git` are versions, "" where the tool does not answer;
    `load` is how many processes ran or wanted to, over a minute (proc_loadavg(5)); `memory_free` is 0 where it is
    not known; `clock` is the machine's time in seconds since the epoch; `used` says by index which GPUs somebody
    uses outside of dstack, in words that follow "is used outside of dstack"; `problem` is the first thing that
    keeps jobs from running here, `fix` what to type about it; `findings` is all that was found, what blocks first;
    `cost` is the processor seconds that the probe took.
    """

    machine: str
    user: str = ""
    cpus: int = 0
    memory: int = 0
    disk_free: int = 0
    load: float = 0.0
    memory_free: int = 0
    gpus: tuple[Gpu, ...] = ()
    used: dict[int, str] = {}
    docker: str = ""
    git: str = ""
    kernel: str = ""
    clock: int = 0
    findings: tuple[Finding, ...] = ()
    cost: float = 0.0

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """What keeps jobs from running here."""
        return tuple(finding for finding in self.findings if finding.blocking)

    @property
    def problem(self) -> str | None:
        """The first of these."""
        return self.blocking[0].what if self.blocking else None

    @property
    def fix(self) -> str | None:
        """What to type about it."""
        return self.blocking[0].fix if self.blocking else None


class Runner(Struct, frozen=True, kw_only=True):
    """A machine of the inventory, as recorded.

    `host_key` is the pinned public key in OpenSSH's format, None for a local runner; `gpus` overrides what the
    probe finds; `docker` is the words before a docker command; `hidden` is one that only `--local` made: it takes
    no job but those that name it; `authorized`: the machine lets the server's own key in, until it is removed;
    `source` is the inventory that it was imported from; `max_jobs` limits how many jobs that
    ask for no resources share it; `allow_mounts` are the folders below which jobs may mount.
    """

    name: str
    address: Address
    labels: tuple[str, ...] = ()
    gpus: int | None = None
    max_jobs: int | None = None
    root: str = DEFAULT_ROOT
    docker: str = "docker"
    host_key: str | None = None
    hidden: bool = False
    drained: str | None = None
    facts: Facts | None = None
    authorized: bool = False
    source: str | None = None
    allow_mounts: tuple[str, ...] = ()

    @property
    def gpu_indexes(self) -> tuple[int, ...]:
        """The indexes of the GPUs that jobs may get."""
        found = self.facts.gpus if self.facts else ()
        if self.gpus is not None:
            broken = {gpu.index for gpu in found if gpu.trouble}
            return tuple(index for index in range(self.gpus) if index not in broken)
        return tuple(gpu.index for gpu in found if gpu.usable)
