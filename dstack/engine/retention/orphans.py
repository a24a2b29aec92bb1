"""Removes what deleted runs leave behind: code on the server and on runners, images, and objects without a manifest."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from dstack.commands.host import ask
from dstack.commands.machine.orphans import Pruned, prune
from dstack.engine.context import Context
from dstack.engine.retention.mirror_gc import tidy
from dstack.errors import HostError, StorageError
from dstack.model.api.retention import Leftover
from dstack.model.job.job import Job, Run
from dstack.model.runner.runner import Runner
from dstack.model.text.units import seconds

TIMEOUT = 600.0
"""Seconds for removing what may be large."""
AT_ONCE = 16
"""How many jobs' objects are checked at a time."""

log = logging.getLogger("dstack.engine")


class Orphans:
    """Removes what no run in `staying` needs; with `dry_run`, only lists it. A runner that does not answer is skipped;
    the next call asks it again."""

    def __init__(self, context: Context, staying: Sequence[Run], *, images: bool, dry_run: bool) -> None:
        self.context = context
        self.store = context.store
        self.images = images
        self.dry_run = dry_run
        self.jobs = [job for run in staying for job in self.store.jobs.of(run.name)]
        self.repos = {run.snapshot.repo for run in staying}

    async def prune(self) -> list[Leftover]:
        """Remove or list all of it."""
        hosts = await asyncio.gather(*map(self.on_host, self.store.runners.all()))
        objects = await self.objects()
        return [
            *(found for founds in hosts for found in founds),
            *objects,
            *await self.contents(),
            *await self.mirrors(),
        ]

    async def on_host(self, runner: Runner) -> list[Leftover]:
        """Prune code, and images that dstack pulled, on one runner."""
        repos = [
            repo for name, repo in self.store.known_objects.places() if name == runner.name and repo not in self.repos
        ]
        used = {job.image for job in self.jobs} | {job.image for job in self.store.jobs.unfinished()}
        pulled = self.store.pulled_images.of(runner.name) if self.images else {}
        images = {name: digest for name, digest in pulled.items() if name not in used}
        if not runner.facts or not (repos or images):
            return []
        try:
            command = prune(self.context.fleet.host_context(runner), repos, images, dry_run=self.dry_run)
            pruned = await ask(self.context.fleet.host(runner), command, timeout=TIMEOUT)
        except HostError as trouble:
            log.warning("%s: unused code and images not removed: %s", runner.name, trouble.message)
            return []
        self.remember(runner, repos, pruned)
        sizes_of = [("code", pruned.mirrors), ("image", pruned.images)]
        return [
            Leftover(what=what, name=name, runner=runner.name, bytes=size)
            for what, sizes in sizes_of
            for name, size in sizes.items()
        ]

    def remember(self, runner: Runner, repos: Sequence[str], pruned: Pruned) -> None:
        """Record what is no longer on the runner."""
        for image in pruned.forgotten:
            self.store.pulled_images.forget(runner.name, image)
        if not self.dry_run:
            for repo in repos:
                self.store.known_objects.forget(runner.name, repo)
            for image in pruned.images:
                self.store.pulled_images.forget(runner.name, image)

    async def objects(self) -> list[Leftover]:
        """Prune objects stored by jobs that ended before they had a manifest."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def look(job: Job) -> Leftover | None:
            size = 0
            for storage in self.context.artifacts.of(job):
                try:
                    async with gate:
                        size += await storage.clear(job.run, job.workflow, dry_run=self.dry_run)
                except StorageError as trouble:
                    if storage.name == self.context.artifacts.current.name:
                        raise
                    log.warning("%s: leftovers of broken uploads not removed: %s", storage.name, trouble.message)
            return Leftover(what="objects", name=f"{job.run}/{job.workflow}", bytes=size) if size else None

        jobs = [job for job in self.jobs if job.finished and not job.cached_from and not job.files]
        return [found for found in await asyncio.gather(*map(look, jobs)) if found]

    async def contents(self) -> list[Leftover]:
        """Prune contents from abandoned collections. A collection in progress may still use everything newer than its
        job's placement."""
        storage = self.context.artifacts.current
        begun = [seconds(job.placed_at) for job in self.store.jobs.unfinished() if job.placed_at]
        size = await storage.unused(min(begun, default=time.time()), dry_run=self.dry_run)
        return [Leftover(what="contents", name=storage.name, bytes=size)] if size else []

    async def mirrors(self) -> list[Leftover]:
        """Prune the server's own mirrors of repositories without a run."""
        found = []
        for path in sorted(self.context.layout.mirrors.glob("*.git")):
            repo = path.name.removesuffix(".git")
            if repo in self.repos:
                if not self.dry_run:
                    await tidy(self.context, repo, most=1)
            elif self.context.mirror(repo).settled:
                size = await asyncio.to_thread(size_of, path)
                if not self.dry_run:
                    await tidy(self.context, repo, most=-1)
                found.append(Leftover(what="code", name=repo, bytes=size))
        return found


def size_of(folder: Path) -> int:
    """The total size in bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*"))
