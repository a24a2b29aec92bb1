"""Runners, in the API and in `--json`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dstack.model.project.workflow import Count
from dstack.model.runner.metrics import Use
from dstack.model.runner.runner import Address, Finding, Gpu

DROPPED = "no longer in the inventory"
"""Why an import drains a runner that it is going to remove."""


class RunnerView(Struct, kw_only=True):
    """A runner as users see it. `state` is ready, unreachable, unusable or drained; `drained` says why it accepts no
    new jobs, in any state; `definition` is the request that would add it again; `gpus_free` counts the GPUs that
    neither a job nor anything else uses; `use` is its current usage, None if unknown; `allow_mounts` are the folders
    that jobs may mount, including the folders in them; `orphans` is what was found there of jobs that the server
    does not know; `same_machine` are the other runners that are this machine, and share what it has; `renamed_from` is
    the runner whose new name this is, if that was found when it was added."""

    name: str
    address: str
    state: str
    reason: str | None
    fix: str | None
    labels: list[str]
    cpus: int
    memory: int
    gpus: list[Gpu]
    disk_free: int
    jobs: list[str]
    latency_ms: float | None
    gpus_free: int = 0
    host_key: str | None = None
    findings: list[Finding] = []
    drained: str | None = None
    definition: AddRunner | None = None
    use: Use | None = None
    allow_mounts: list[str] = []
    orphans: list[OrphanView] = []
    same_machine: list[str] = []
    renamed_from: str | None = None


class OrphanView(Struct, kw_only=True):
    """What a runner has of an attempt that no job of the server's records own. `what` is running, ended, prepared (its
    commands never began) or artifacts; `run` and `workflow` are None if its launch left no record."""

    name: str
    what: str
    run: str | None = None
    workflow: str | None = None


class Clean(Struct, kw_only=True):
    """The body of `POST /runners/NAME/clean`: the orphans to remove."""

    names: tuple[str, ...]


class AddRunner(Struct, kw_only=True):
    """The body of `POST /runners`. Without `fingerprint`, a host key missing from known_hosts leads to a problem of
    kind `host-key` that contains it. `authorized`: the runner accepts the server's own key, so use that. `source` is
    the inventory that the runner comes from, and `replaces` names its runners that the inventory no longer has: if this
    is one of them under a new name, it is renamed."""

    address: Address
    name: str | None = None
    labels: tuple[str, ...] = ()
    gpus: Count | None = None
    max_jobs: Annotated[int, Meta(ge=0, le=10**6)] | None = None
    root: str | None = None
    docker: str | None = None
    fingerprint: str | None = None
    authorized: bool = False
    source: str | None = None
    allow_mounts: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()


class RunnerRemoved(Struct, kw_only=True):
    """The response to `DELETE /runners/NAME`: `used_by` are the other runners that use the same folder, so that what is
    in it stays."""

    used_by: list[str] = []


class ServerKey(Struct, kw_only=True):
    """The response of `GET /key`: the server's own public key (type and base64) and id."""

    key: str
    server: str


class Drain(Struct, kw_only=True):
    """The body of `POST /runners/NAME/drain`."""

    reason: str = "by hand"
