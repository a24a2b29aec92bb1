"""What `dstack prune` removes besides runs: what deleted runs leave behind, and the folders that workflows keep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from dstack.commands.host import ask
from dstack.commands.machine.cache_folders import Cache, caches, drop
from dstack.commands.machine.orphans import prune
from dstack.engine.context import Context, log
from dstack.errors import DstackError, HostError, StorageError
from dstack.model.api.retention import CacheFolder, Leftover, PruneCachesRequest
from dstack.model.job.job import Job
from dstack.model.runner.runner import Runner
from dstack.model.text.units import rfc3339, seconds
from dstack.store.tables.runs import Brief

TIMEOUT = 600.0
"""Seconds for measuring or removing what may be many files."""
AT_ONCE = 16
"""How many jobs' objects are checked at a time."""
MOST_PACKS = 50
"""Packs in a mirror before it is collected; each submission adds one."""


class Orphans:
    """Removes what no run needs except those in `going`: code on the server and on runners, images, and objects without
    a manifest. With `dry_run`, only lists it. A runner that does not answer is skipped; the next call asks it again."""

    def __init__(self, context: Context, going: Collection[str], *, images: bool, dry_run: bool) -> None:
        self.context = context
        self.store = context.store
        self.going = going
        self.images = images
        self.dry_run = dry_run
        self.repos: set[str] = set()
        self.used: set[str] = set()

    async def prune(self) -> list[Leftover]:
        objects = []
        for page in self.store.runs.pages():
            names = self.stay(page)
            if self.images:
                self.used |= self.store.jobs.images_of(names)
            objects += await self.objects(self.store.jobs.incomplete(names))
            await asyncio.sleep(0)
        self.stay(next(self.store.runs.pages(), ()))  # what was submitted meanwhile
        hosts = await asyncio.gather(*map(self.on_host, self.store.runners.all()))
        on_hosts = [found for founds in hosts for found in founds]
        return [*on_hosts, *objects, *await self.contents(), *await self.mirrors()]

    def stay(self, runs: Sequence[Brief]) -> list[str]:
        """Note the repositories of those that stay, and return their names."""
        staying = [run for run in runs if run.name not in self.going]
        self.repos |= {run.repo for run in staying}
        return [run.name for run in staying]

    async def on_host(self, runner: Runner) -> list[Leftover]:
        """Prune code, and images that dstack pulled, on one runner."""
        name, known, pulled = runner.name, self.store.known_objects, self.store.pulled_images
        repos = [repo for where, repo in known.places() if where == name and repo not in self.repos]
        used = self.used | {job.image for job in self.store.jobs.unfinished()}
        images = {image: digest for image, digest in pulled.of(name).items() if self.images and image not in used}
        if not runner.facts or not (repos or images):
            return []
        try:
            host_context = self.context.fleet.host_context(runner)
            command = prune(host_context, repos, images, dry_run=self.dry_run)
            pruned = await ask(self.context.fleet.host(runner), command, timeout=TIMEOUT)
        except HostError as trouble:
            log.warning("%s: unused code and images not removed: %s", name, trouble.message)
            return []
        for image in (*pruned.forgotten, *(() if self.dry_run else pruned.images)):
            pulled.forget(name, image)
        for repo in () if self.dry_run else repos:
            known.forget(name, repo)
        code = [Leftover(what="code", name=repo, runner=name, bytes=size) for repo, size in pruned.mirrors.items()]
        gone = [Leftover(what="image", name=image, runner=name, bytes=size) for image, size in pruned.images.items()]
        return code + gone

    async def objects(self, jobs: Sequence[Job]) -> list[Leftover]:
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

        return [found for found in await asyncio.gather(*map(look, jobs)) if found]

    async def contents(self) -> list[Leftover]:
        """Prune contents from abandoned collections: what arrived before any unfinished job was placed."""
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
    return sum(path.lstat().st_size for path in folder.rglob("*"))


async def tidy(context: Context, repo: str, *, most: int = MOST_PACKS) -> None:
    """Collect a repository's mirror on the server if it has more than `most` packs. The code of every run is kept."""
    mirror = context.mirror(repo)
    if mirror.packs <= most:
        return
    try:
        await asyncio.to_thread(mirror.collect, context.store.runs.snapshots(repo))
    except DstackError as trouble:
        log.warning("the mirror of %s could not be collected: %s", repo, trouble.message)


def start_tidying(context: Context, repo: str, *, most: int = MOST_PACKS) -> None:
    """Collect it in the background."""
    context.tasks.start(f"collecting the mirror of {repo}", lambda: tidy(context, repo, most=most), once=True)


async def prune_caches(context: Context, wish: PruneCachesRequest) -> list[CacheFolder]:
    """Remove the cache folders that are not in use and have not been used for `unused_for` seconds; return them. With
    `dry_run`, only return them. A runner that does not answer is skipped; the next call asks it again."""

    async def on_host(runner: Runner) -> list[CacheFolder]:
        host, host_context = context.fleet.host(runner), context.fleet.host_context(runner)
        try:
            cached = await ask(host, caches(host_context), timeout=TIMEOUT)
            chosen = [cache for cache in cached if time.time() - cache.used >= wish.unused_for]
            if chosen and not wish.dry_run:
                removed = await ask(host, drop(host_context, [cache.folder for cache in chosen]), timeout=TIMEOUT)
                chosen = [cache for cache in chosen if cache.folder in removed]
        except HostError as trouble:
            log.warning("%s: its caches could not be pruned: %s", runner.name, trouble.message)
            return []
        return [cache_folder(context, runner, cache) for cache in chosen]

    runners = [runner for runner in context.store.runners.all() if runner.facts]
    return [folder for folders in await asyncio.gather(*map(on_host, runners)) for folder in folders]


def cache_folder(context: Context, runner: Runner, cache: Cache) -> CacheFolder:
    """The folder as users see it: its repository by the URL that was last known."""
    repo = context.store.runs.url(cache.repo) or cache.repo
    used_at = rfc3339(cache.used)
    return CacheFolder(runner=runner.name, cache=cache.path, repo=repo, bytes=cache.size, used_at=used_at)
