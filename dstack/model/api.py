"""What goes over the wire between CLI and server, and what `--json` prints. Names are those of the documentation."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.metrics import Use
from dstack.model.runner import Address, Finding, Gpu
from dstack.model.snapshot import Snapshot
from dstack.model.status import Status
from dstack.model.workflow import Variables, Workflow

API = 1
"""Raised when a CLI and a server of different numbers can't talk."""


class Submission(Struct, kw_only=True):
    """The body of `POST /runs`: this as one line of JSON, then a pack of the objects of `snapshot` that the server
    lacks. `workflows` holds the named one and all that it depends on, `variables` theirs. `runner` is a name or a
    label; `local` asks for the server's own machine. `environment` is what `-e` gave. With `from_run`, the snapshot is
    that run's, and no pack follows. `timeout` is after how many
    seconds in the queue it is withdrawn; `singleton` refuses it while another run of this repository and workflow is
    unfinished; the same `once` returns the same run; `wait_for_runner` takes it though no runner could run it yet.
    """

    workflow: str
    workflows: tuple[Workflow, ...]
    variables: dict[str, Variables]
    snapshot: Snapshot
    user: str
    name: str | None = None
    runner: str | None = None
    local: bool = False
    no_cache: bool = False
    gpus: int | None = None
    environment: dict[str, str] = {}
    dry_run: bool = False
    from_run: str | None = None
    priority: int | None = None
    timeout: float | None = None
    singleton: bool = False
    once: str | None = None
    wait_for_runner: bool = False


class CacheView(Struct):
    """Whether the result came from the cache, and in one line why or why not."""

    hit: bool
    why: str


class ArtifactsView(Struct):
    """How much a job left. `bytes` in bytes."""

    files: int
    bytes: int


class AttemptView(Struct, kw_only=True):
    """An earlier attempt of a job. Its part of the job's log is from byte `log_start` to `log_end`."""

    number: int
    status: Status
    exit_code: int | None
    reason: str | None
    runner: str | None
    gpus: list[int]
    started_at: str | None
    finished_at: str
    log_start: int
    log_end: int


class JobView(Struct, kw_only=True):
    """A job as users see it. `position` is its place in the queue, from 1, None where it does not queue for a
    runner. `attempts` are those before this one, whose log begins at byte `log_start`."""

    id: str
    run: str
    workflow: str
    status: Status
    exit_code: int | None
    reason: str | None
    cached: bool
    cached_from: str | None
    cache: CacheView
    runner: str | None
    gpus: list[int]
    image: str
    image_digest: str | None
    attempt: int
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    artifacts: ArtifactsView
    priority: int = 0
    position: int | None = None
    attempts: list[AttemptView] = []
    log_start: int = 0


class RepoView(Struct, kw_only=True):
    """Where a run's code came from."""

    url: str | None
    branch: str | None
    commit: str | None
    dirty: bool


class RunView(Struct, kw_only=True):
    """A run as users see it. `warnings` are what its submission should make its user think about."""

    name: str
    workflow: str
    user: str
    status: Status
    exit_code: int | None
    reason: str | None
    submitted_at: str
    finished_at: str | None
    repo: RepoView
    variables: dict[str, str | None]
    jobs: list[JobView]
    warnings: list[str] = []


class PlannedJob(Struct, kw_only=True):
    """What a job would be: `runner` is where it would run, or None with a `reason`."""

    workflow: str
    image: str
    cached_from: str | None
    cache: CacheView
    runner: str | None
    reason: str | None


class Change(Struct):
    """One path that differs from the commit. `change` is added, modified, deleted; `size` in bytes, 0 if deleted."""

    path: str
    change: str
    size: int


class SizedFile(Struct):
    """A file of the snapshot, its size in bytes."""

    path: str
    size: int


class Plan(Struct, kw_only=True):
    """The answer to a dry run. `files` and `bytes` count the whole snapshot; `largest` and `changes` are by size."""

    workflow: str
    repo: RepoView
    jobs: list[PlannedJob]
    changes: list[Change]
    files: int
    bytes: int
    largest: list[SizedFile] = []
    warnings: list[str] = []


class Recipe(Struct, kw_only=True):
    """What a run was made of: all that it takes to submit it again."""

    workflow: str
    workflows: tuple[Workflow, ...]
    variables: dict[str, Variables]
    snapshot: Snapshot
    environment: dict[str, str]
    gpus: int | None = None


class ArtifactView(Struct, kw_only=True, omit_defaults=True):
    """One stored file. `path` is relative to the project's folder; `link` the target of a symbolic link; `partial`: it
    is from a job that had not ended."""

    job: str
    workflow: str
    path: str
    size: int
    mode: int
    sha256: str
    link: str | None = None
    partial: bool = False


class TagView(Struct, kw_only=True):
    """A name that was given to a job's result."""

    name: str
    run: str
    job: str
    workflow: str
    created_at: str


class DeleteRequest(Struct, kw_only=True):
    """The body of `POST /runs/delete`."""

    refs: tuple[str, ...]


class PruneRequest(Struct, kw_only=True):
    """The body of `POST /prune`. `older_than` in seconds."""

    keep_last: int | None = None
    older_than: float | None = None
    dry_run: bool = False


class Removed(Struct, kw_only=True):
    """A run that was removed, or would be. `bytes` become free; `kept` are the workflows whose results others use."""

    run: str
    workflow: str
    submitted_at: str
    bytes: int
    kept: list[str]


class PruneCachesRequest(Struct, kw_only=True):
    """The body of `POST /prune/caches`: folders that no job used for so many seconds go."""

    unused_for: float = 0
    dry_run: bool = False


class CacheFolder(Struct, kw_only=True):
    """A folder that workflows of a repository keep on a runner, which was removed or would be. `cache` is its path in
    containers; `bytes` become free."""

    runner: str
    cache: str
    repo: str
    bytes: int
    used_at: str


class PruneRestRequest(Struct, kw_only=True):
    """The body of `POST /prune/rest`: what those runs do not need that stay by the same rule as that of `POST /prune`.
    `images`: also images that dstack pulled."""

    keep_last: int | None = None
    older_than: float | None = None
    images: bool = False
    dry_run: bool = False


class Leftover(Struct, kw_only=True):
    """What was removed besides runs, or would be. `what` is `code` (a copy of a repository), `image` or `objects` (of a
    job that ended before its artifacts were complete); `runner` is where, None for the server and the storage."""

    what: str
    name: str
    bytes: int
    runner: str | None = None


class TagRequest(Struct, kw_only=True):
    """The body of `POST /tags`. `ref` is a run or a job; `force` takes the name from another."""

    ref: str
    name: str
    force: bool = False


class LinkView(Struct, kw_only=True):
    """Where anybody can read a file until `expires_at`."""

    url: str
    expires_at: str


class LinksRequest(Struct, kw_only=True):
    """The body of `POST /artifacts/JOB/urls`: files of the job."""

    paths: tuple[str, ...]


class LinksView(Struct, kw_only=True):
    """Where the files can be read until `expires_at`, in their order; no `urls` where the storage gives none."""

    urls: list[str]
    expires_at: str


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


class StopRequest(Struct, kw_only=True):
    """The body of `POST /stop`. `refs` are runs or jobs; `everything` stops all unfinished runs instead, `workflow`
    those of a workflow."""

    refs: tuple[str, ...] = ()
    everything: bool = False
    abort: bool = False
    workflow: str | None = None


class HoldRequest(Struct, kw_only=True):
    """The body of `POST /hold`. `refs` are runs or jobs; `user` is who holds them, None to let them go."""

    refs: tuple[str, ...]
    user: str | None = None


class HoldAnswer(Struct, kw_only=True):
    """Which jobs it changed, by run, and which of the runs have nothing queued that it could change."""

    changed: dict[str, list[str]]
    unchanged: list[str]


class SetSecret(Struct, kw_only=True):
    """The body of `POST /secrets`."""

    name: str
    value: str


class SecretView(Struct, kw_only=True):
    """A secret as users see it: never its value."""

    name: str
    set_at: str


class DeletedSecret(Struct, kw_only=True):
    """The answer of `DELETE /secrets/NAME`: the jobs that have not started, and need it."""

    missed_by: list[str]


class ServerConfig(Struct, kw_only=True):
    """What `dstack config` sets on the server; None leaves it. `storage` is a folder or s3://bucket/prefix, with the
    `endpoint_url` of a store that is not AWS's; `max_gpus_per_user` is how many GPUs one user's jobs may hold at once,
    -1 for any number."""

    storage: str | None = None
    endpoint_url: str | None = None
    max_gpus_per_user: int | None = None


class ServerStatus(Struct, kw_only=True):
    """The answer of `GET /status`. `runs` counts the unfinished ones."""

    pid: int
    url: str
    version: str
    api: int
    started_at: str
    runs: int
    home: str


class Event(Struct, kw_only=True, omit_defaults=True):
    """A frame of `GET /follow/REF`: one line of JSON; for a `log` event, `bytes` raw bytes of the job's log follow it.

    `event` is `job` (a job changed: `job` holds it), `log` (`id`, `workflow`, `offset` in bytes, `time` of arrival),
    `run` (the run, as the last frame of a run that was followed to its end) or `ping` (nothing happened for a while).
    """

    event: str
    job: JobView | None = None
    run: RunView | None = None
    id: str | None = None
    workflow: str | None = None
    offset: int | None = None
    bytes: int | None = None
    time: str | None = None


class Problem(Struct, kw_only=True):
    """An error as the server tells it. `kind` is the name of the class in `dstack/errors.py`, or one of those that
    a client acts on: `host-key`, `missing-base` (`known` is what a pack may build on)."""

    kind: str
    message: str
    hint: str | None = None
    exit_code: int = 125
    fingerprint: str | None = None
    known: tuple[str, ...] = ()
