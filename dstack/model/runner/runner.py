"""A runner: how to reach it, what it has, and whether it can be used."""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

from dstack.errors import HostKeyError

DEFAULT_ROOT = "~/.dstack-host"
_V6 = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?"
_PLACE = re.compile(
    rf"\[(?P<bracketed>{_V6}|[^-:/\[\]][^:/\[\]]*)\](?::(?P<port>.*))?|(?P<bare>(?=.*:.*:){_V6})|(?P<name>[^-:/\[\]][^:/\[\]]*)(?::(?P<port2>.*))?"
)
"""An IPv6 address or any other name, in brackets or without; with a port except behind a bare IPv6 address."""


class Gpu(Struct, frozen=True):
    """One GPU. `memory` in bytes; `vendor` is nvidia or amd; `driver` is the driver's version; `mig` has the profiles
    of its MIG devices, None if it is not split; `node` is an AMD GPU's name below /dev/dri, "" if unknown; `trouble` is
    the driver's error if the GPU is broken."""

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
        """Whether a job can get this GPU: it works, is not split by MIG, and can be passed to a container."""
        return not self.trouble and self.mig is None and (self.vendor == "nvidia" or bool(self.node))


class Address(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to reach a runner. `host` is a name, an address or an alias from ~/.ssh/config; None means this machine
    without SSH. What is not set comes from ~/.ssh/config, or else from ssh's defaults. `jump_identity` is the key for
    the jump hosts; without one, they are offered `identity`."""

    host: str | None = None
    user: str | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    identity: str | None = None
    jump: str | None = None
    jump_identity: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `[user@]host[:port]`; an IPv6 address with a port needs brackets. Raises ValueError if that fails."""
        user, at, place = text.rpartition("@")
        found = _PLACE.fullmatch(place)
        spaced = any(letter.isspace() or not letter.isprintable() for letter in text)
        if not found or (at and not user) or spaced or user.startswith("-"):
            raise ValueError(f"'{text}' is not a valid host; write [user@]host[:port] or an alias from ~/.ssh/config")
        host, port = (
            found["bracketed"] or found["bare"] or found["name"],
            found["port"] if found["bracketed"] else found["port2"],
        )
        if port is not None and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
            raise ValueError(f"'{text}' does not have a valid port; write a number from 1 to 65535")
        return cls(host=host, user=user or None, port=int(port) if port else None)

    @property
    def local(self) -> bool:
        """Whether this is the server's own machine, without SSH."""
        return self.host is None

    def __str__(self) -> str:
        if self.host is None:
            return "local"
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{user}{host}" + (f":{self.port}" if self.port else "")


class Finding(Struct, frozen=True):
    """A problem on a runner: what it is, why it matters, and the command that fixes it. If `blocking`, no job can run
    there until it is fixed."""

    name: str
    what: str
    why: str
    fix: str
    blocking: bool = False


class Facts(Struct, frozen=True, kw_only=True):
    """What a probe found. Sizes in bytes; `docker` and `git` are versions, "" if the tool does not work; `load` is the
    one-minute load average (proc_loadavg(5)); `memory_free` is 0 if unknown; `clock` is the machine's time in seconds
    since the epoch; `used` has, by index, the GPUs in use outside of dstack, each with words that follow "is used
    outside of dstack"; `findings` starts with the blocking ones; `cost` is the CPU seconds that the probe took.

    `machine` is its machine id, which clones share; `boot` is the kernel's boot id, and `booted` when that was, in
    seconds since the epoch. `engine` is the id of Docker's data folder: only whom Docker answers can know it. `root` is
    the absolute path of the folder for dstack's files. "" or 0 if unknown."""

    machine: str
    boot: str = ""
    booted: int = 0
    engine: str = ""
    root: str = ""
    user: str = ""
    cpus: int = 0
    memory: int = 0
    disk_free: int = 0
    disk_total: int = 0
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
        """The findings that keep jobs from running here."""
        return tuple(finding for finding in self.findings if finding.blocking)

    @property
    def problem(self) -> str | None:
        """The first blocking problem."""
        return self.blocking[0].what if self.blocking else None

    @property
    def fix(self) -> str | None:
        """The command that fixes it."""
        return self.blocking[0].fix if self.blocking else None


class Runner(Struct, frozen=True, kw_only=True):
    """A runner as recorded.

    `host_key` is the pinned public key in OpenSSH's format, None for a local runner; `gpus` overrides the number found
    by the probe; `docker` is the docker command, such as `sudo docker`. A `hidden` runner was made by `--local` and
    accepts only jobs that name it. An `authorized` one accepts the server's own key until the runner is removed.
    `source` is the inventory that it was imported from. `max_jobs` limits how many jobs without resources share it.
    `allow_mounts` are the folders that jobs may mount, including the folders in them.
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
    def kind(self) -> str:
        """What runs its jobs; `executors/kinds.py` has the executor for each kind."""
        return "docker"

    @property
    def add_command(self) -> str:
        """The command that adds it again."""
        identity = None if self.authorized else self.address.identity
        given: list[tuple[str, object]] = [
            ("--name", self.name),
            ("--identity", identity),
            ("--jump", self.address.jump),
            *(("--label", label) for label in self.labels),
            ("--gpus", self.gpus),
            ("--max-jobs", self.max_jobs),
            ("--root", self.root if self.root != DEFAULT_ROOT else None),
            *(("--allow-mount", folder) for folder in self.allow_mounts),
            ("--docker", self.docker if self.docker != "docker" else None),
        ]
        options = [str(word) for option in given if option[1] is not None for word in option]
        return shlex.join(["dstack", "runners", "add", str(self.address), *options])

    @property
    def gpu_indexes(self) -> tuple[int, ...]:
        """The indexes of the GPUs that jobs may get."""
        found = self.facts.gpus if self.facts else ()
        if self.gpus is None:
            return tuple(gpu.index for gpu in found if gpu.usable)
        broken = {gpu.index for gpu in found if gpu.trouble}
        return tuple(index for index in range(self.gpus) if index not in broken)


def fingerprint(key: str) -> str:
    """Return the fingerprint of a public key in OpenSSH's format, as `ssh-keygen -l` prints it: `SHA256:...`."""
    try:
        blob = base64.b64decode(key.split()[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise HostKeyError(f"{key!r} is not a public key in OpenSSH's format") from error
    return "SHA256:" + base64.b64encode(sha256(blob).digest()).decode().rstrip("=")
