"""Checks that a runner can reach object storage, and has it fetch dependencies' artifacts from there."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dstack.artifacts.s3.store import S3Store
from dstack.commands.artifacts.fetch_dependencies import gather
from dstack.commands.artifacts.upload import reach
from dstack.engine.context import Context
from dstack.errors import CommandError, HostError
from dstack.hosts.host import ask
from dstack.model.job.job import Job
from dstack.model.job.manifest import File, Manifest
from dstack.model.paths import attempt_id
from dstack.model.runner.runner import Runner

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
        await ask(context.machines.host(runner), reach(context.machines.place(runner), url), timeout=REACH)
    except CommandError as error:
        raise HostError(
            f"{runner.name} can't reach the storage {storage.name}, so the job's artifacts would be lost:"
            f" {error.stderr.strip()}",
            hint="let the machine connect to it, or choose another storage: dstack config --storage URL",
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
        context.machines.place(runner),
        attempt_id(job.id, job.attempt),
        sorted(files.values(), key=by_path),
        urls,
        beside=beside,
    )
    try:
        await ask(context.machines.host(runner), command)
    except CommandError as error:
        log.warning("job %s: %s; the server sends the artifacts itself", job.id, error.message)
        return False
    return True


def by_path(file: File) -> str:
    return file.path
