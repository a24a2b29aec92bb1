"""Lists and removes the folders that workflows keep on runners (`cache:`)."""

from __future__ import annotations

import asyncio
import logging
import time

from dstack.commands.host import ask
from dstack.commands.machine.cache_folders import Cache, caches, drop
from dstack.engine.context import Context
from dstack.errors import HostError
from dstack.model.api.retention import CacheFolder, PruneCachesRequest
from dstack.model.runner.runner import Runner
from dstack.model.text.units import rfc3339

TIMEOUT = 600.0
"""Seconds for measuring or removing what may be many files."""

log = logging.getLogger("dstack.engine")


async def prune_caches(context: Context, wish: PruneCachesRequest) -> list[CacheFolder]:
    """Remove the cache folders that are not in use and have not been used for `unused_for` seconds; return them. With
    `dry_run`, only return them. A runner that does not answer is skipped; the next call asks it again."""
    runners = [runner for runner in context.store.runners.all() if runner.facts]
    pruned = await asyncio.gather(*(_pruned(context, runner, wish) for runner in runners))
    return [folder for folders in pruned for folder in folders]


async def _pruned(context: Context, runner: Runner, wish: PruneCachesRequest) -> list[CacheFolder]:
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
    return [_folder(context, runner, cache) for cache in chosen]


def _folder(context: Context, runner: Runner, cache: Cache) -> CacheFolder:
    snapshots = context.store.runs.snapshots(cache.repo)
    url = next((snapshot.url for snapshot in reversed(snapshots) if snapshot.url), None)
    return CacheFolder(
        runner=runner.name, cache=cache.path, repo=url or cache.repo, bytes=cache.size, used_at=rfc3339(cache.used)
    )
