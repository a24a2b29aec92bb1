"""Checks that a runner can reach object storage, and has it fetch dependencies' artifacts from there."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from dstack.artifacts.s3.store import S3Store
from dstack.commands.artifacts.fetch_dependencies import gather
from dstack.commands.artifacts.retain import Copied, reuse
from dstack.commands.artifacts.upload import reach
from dstack.engine.context import Context
from dstack.engine.retention.clear import clear
from dstack.errors import CommandError, HostError
from dstack.hosts.host import ask
from dstack.model.job.job import Job
from dstack.model.job.manifest import File, Manifest
from dstack.model.job.reasons import ReasonCode
from dstack.model.paths import attempt_id
from dstack.model.runner.runner import Runner
from dstack.store.tables.retained_artifacts import Retained

REACH = 60.0
"""Seconds for a runner to get an answer from the storage."""

log = logging.getLogger("dstack.engine")


async def reached(context: Context, job: Job, runner: Runner) -> None:
    """Raise HostError if the runner of a job with artifacts can't reach the storage, so that the user learns it before
    the job runs. Each runner is asked once in a server's life."""
    storage = context.storage
    if not isinstance(storage, S3Store) or not job.definition.artifacts:
        return
    asked = (runner.name, storage.name)
    if asked in context.reached:
        return
    url = (await storage.urls(job.run, job.workflow, ["."]))[0]
    try:
        await ask(context.fleet.host(runner), reach(context.fleet.host_context(runner), url), timeout=REACH)
    except CommandError as error:
        raise HostError(
            f"{runner.name} can't reach the storage {storage.name}, so the job's artifacts would be lost:"
            f" {error.stderr.strip()}",
            hint="let the machine connect to it, or choose another storage: dstack config --storage URL",
            code=ReasonCode.STORAGE_UNAVAILABLE,
        ) from error
    context.reached.add(asked)


async def gathered(
    context: Context, job: Job, runner: Runner, manifests: Sequence[Manifest], *, beside: bool = False
) -> bool:
    """Have the runner fetch the dependencies' artifacts straight from the storage, `beside` those that were copied
    there. Returns False if that is impossible, and the server has to send them."""
    storage = context.storage
    if not isinstance(storage, S3Store) or not manifests:
        return False
    files: dict[str, File] = {}
    urls: dict[str, str] = {}
    for manifest in manifests:
        files.update({file.path: file for file in manifest.files if file.path not in files})
        paths = [file.path for file in manifest.files if file.link is None]
        urls.update(zip(paths, await storage.urls(manifest.run, manifest.workflow, paths), strict=True))
    command = gather(
        context.fleet.host_context(runner),
        attempt_id(job.id, job.attempt),
        sorted(files.values(), key=by_path),
        urls,
        beside=beside,
    )
    try:
        await ask(context.fleet.host(runner), command)
    except CommandError as error:
        log.warning("job %s: %s; the server sends the artifacts itself", job.id, error.message)
        return False
    return True


def by_path(file: File) -> str:
    return file.path


async def reused(
    context: Context, job: Job, runner: Runner, manifests: Sequence[Manifest]
) -> tuple[bool, list[Manifest]]:
    """Have the runner copy the dependencies' artifacts that were made there. Returns whether it did, and which
    artifacts still have to come from elsewhere."""
    reusable = {}
    if job.attempt == 1:  # a later attempt starts with what the previous one left, which wins
        for manifest in manifests:
            kept = await _kept(context, manifest.job, runner)
            if kept:
                reusable[kept.attempt] = manifest
    if not reusable:
        return False, list(manifests)
    links = [file for manifest in reusable.values() for file in manifest.files if file.link is not None]
    command = reuse(context.fleet.host_context(runner), attempt_id(job.id, job.attempt), list(reusable), links)
    try:
        copied = await ask(context.fleet.host(runner), command)
    except CommandError as error:
        log.warning("job %s: %s; fetching the artifacts from the storage instead", job.id, error.message)
        return False, list(manifests)
    lost = [attempt for attempt, manifest in reusable.items() if copied.get(attempt) != _expected(manifest)]
    if lost:
        log.info("job %s: artifacts that were kept on %s are gone or incomplete", job.id, runner.name)
        context.store.retained_artifacts.remove(lost)
        return False, list(manifests)
    paths = {file.path for manifest in reusable.values() for file in manifest.files}
    rest = [
        replace(manifest, files=tuple(file for file in manifest.files if file.path not in paths))
        for manifest in manifests
        if manifest not in reusable.values()
    ]
    return True, [manifest for manifest in rest if manifest.files]


async def _kept(context: Context, job_id: str, runner: Runner) -> Retained | None:
    """The artifacts of a job that are kept on the runner. A job that ended just now is cleared first."""
    job = context.store.jobs.get(job_id)
    if job and job.runner == runner.name and not job.discarded:
        try:
            await clear(context, job_id)
        except CommandError as error:
            log.warning("job %s: %s", job_id, error.message)
    kept = context.store.retained_artifacts.get(job_id)
    return kept if kept and kept.runner == runner.name else None


def _expected(manifest: Manifest) -> Copied:
    regular = [file for file in manifest.files if file.link is None]
    return Copied(len(regular), sum(file.size for file in regular))
