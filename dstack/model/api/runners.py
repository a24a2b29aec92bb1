"""Machines on the wire, and in `--json`."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.metrics import Use
from dstack.model.runner import Address, Finding, Gpu


class RunnerView(Struct, kw_only=True):
    """A machine as users see it. `state` is ready, unreachable, unusable or drained; `drained` is why it takes no new
    jobs, also while it is in another state; `definition` is how it would be added again; `gpus_free`
    counts the GPUs that no job has and nobody else uses; `use` is what it does now, None where that is not known;
    `allow_mounts` are the folders below which jobs may mount."""

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


class AddRunner(Struct, kw_only=True):
    """The body of `POST /runners`. Without `fingerprint`, a host key that known_hosts does not have is answered with
    a problem of kind `host-key` that carries it. `authorized`: the machine lets the server's own key in, which is used.
    `source` is the inventory that says so."""

    address: Address
    name: str | None = None
    labels: tuple[str, ...] = ()
    gpus: int | None = None
    max_jobs: int | None = None
    root: str | None = None
    docker: str | None = None
    fingerprint: str | None = None
    authorized: bool = False
    source: str | None = None
    allow_mounts: tuple[str, ...] = ()


class ServerKey(Struct, kw_only=True):
    """The answer of `GET /key`: the server's own public key (type and base64), and the server's id."""

    key: str
    server: str


class Drain(Struct, kw_only=True):
    """The body of `POST /runners/NAME/drain`."""

    reason: str = "by hand"
