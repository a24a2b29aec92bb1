"""What is asked of an executor, and what it answers; how a job is observed is in `decide.py`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal

from msgspec import Struct

from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Origin
from dstack.model.job.manifest import Folder
from dstack.model.runner.mounts import Mount
from dstack.model.text.untrusted import decimal


class Order(Struct, frozen=True, kw_only=True):
    """What to launch. `depth` is how many commits of the snapshot's history the job sees, None for all of them. `user`
    is a uid, a name, or `image` for the image's own. `environment` maps names to values, None to unset one. `cpu` is in
    CPUs, `memory` and `shm` (of /dev/shm) in bytes; 0 for no limit (`shm`: half of the machine's memory). `mounts` are
    of folders that lie in one of `allowed`; `caches` are paths in the container of folders that stay on the host. On
    stdin come `pack` bytes of code that the host may lack and, with `artifacts`, a tar of the dependencies' files with
    paths below the snapshot's project, unless they were `gathered` on the host; `folders` are the folders of all
    dependencies. `record` stays in the job's folder, for a server that does not know the job."""

    job: str
    attempt: str
    image: str
    snapshot: Snapshot
    depth: int | None = None
    user: str = "root"
    gpus: tuple[int, ...] = ()
    cpu: float = 0
    memory: int = 0
    shm: int = 0
    script: str
    environment: dict[str, str | None] = {}
    caches: tuple[str, ...] = ()
    artifacts: bool = False
    pack: int = 0
    gathered: bool = False
    folders: tuple[Folder, ...] = ()
    mounts: tuple[Mount, ...] = ()
    allowed: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    record: str = ""


class Launched(Struct, frozen=True):
    """`started`: the job started now. `exists`: it started earlier, or has ended. `fenced`: it must not start.
    `need-code`, `need-image`: nothing was done, because this is missing. `received`: the pack was stored. `spare`:
    writing the tree took long; a spare copy saves that next time. `origin` and `digest` (of the image:
    `name@sha256:...`, or its id if it never came from a registry) are set for the first two. For need-code, `commits`,
    `trees` and `histories` are what the host has, for a pack to build on."""

    outcome: Literal["started", "exists", "need-code", "need-image", "fenced"]
    origin: Origin | None = None
    digest: str | None = None
    commits: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()
    histories: tuple[str, ...] = ()
    received: bool = False
    spare: bool = False


class Received(Enum):
    """What became of a pack: it was taken in, or the whole snapshot is needed because a base is missing or damaged."""

    OK = "ok"
    NEED_FULL = "full"


def origin(said: Mapping[str, str]) -> Origin:
    """Return the origin from a script's answer."""
    uptime = said.get("uptime")
    return Origin(said.get("boot", ""), said.get("docker", ""), decimal(uptime) if uptime else None)


class Stopped(Struct, frozen=True):
    """`fenced`: its commands never started and never will. `stopping`: it was told to end. `running`: it was left
    alone. `ended`: nothing runs."""

    outcome: Literal["fenced", "stopping", "running", "ended"]


REFUSED, NO_PROGRAM = 96, 97
"""The exit statuses of a connection to a container: nothing listens on the port, or no program can connect to it."""


class ContainerCommand(Struct, frozen=True, kw_only=True):
    """A command for the container of a job that runs. `id` tells its processes from all others. `environment` is added
    to the container's, `term` is the TERM of a command in a terminal. Without `command` it is a shell."""

    id: str
    command: tuple[str, ...] = ()
    folder: str = "/workflow"
    environment: dict[str, str] = {}
    term: str | None = None
