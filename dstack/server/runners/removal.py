"""Removes runners and what this server created on their machines, but nothing that another runner there uses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from msgspec.structs import replace

from dstack.commands.host import ask
from dstack.commands.machine.uninstall import revoke, uninstall
from dstack.engine.engine import Engine
from dstack.errors import ConflictError, HostError, HostUnreachableError
from dstack.hosts.trust import login
from dstack.model.api.runners import DROPPED, RunnerRemoved
from dstack.model.job.job import Job
from dstack.model.runner.machine import maybe_same, same_folder, sharing
from dstack.model.runner.runner import Runner


class Removal:
    """Removes and renames runners."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.store, self.fleet = engine, engine.store, engine.context.fleet

    def busy(self, name: str) -> Sequence[Job]:
        """Return the jobs that the runner has."""
        return [job for job in self.store.jobs.unfinished() if job.runner == name]

    async def remove(self, name: str, *, force: bool = False) -> RunnerRemoved:
        """Remove everything of this server from the machine that no other runner uses, then forget the runner. Raises
        ConflictError while jobs run there, and HostUnreachableError if the machine can't be cleaned (`force` forgets
        it anyway)."""
        runner = self.store.runners.require(name)
        self.require_idle(name)
        others = await self.others(runner)
        users = [each for each in others if same_folder(runner, each)]
        try:
            await self.leave(runner, others)
        except HostError as trouble:
            if not force:
                message = f"{name} could not be cleaned, so it was not removed: {trouble.message}"
                hint = f"try again later, or leave its files there: dstack runners remove --force {name}"
                raise HostUnreachableError(message, hint=hint) from trouble
        self.require_idle(name)  # cleaning takes a while
        await self.fleet.pool.close(name)
        with self.store.database.transaction():
            if users:
                self.store.hand_over(name, users[0].name)
            self.store.runners.remove(name)
            self.store.retained_artifacts.remove(each.attempt for each in self.store.retained_artifacts.of(name))
            self.store.registrations.remove(name)
        self.fleet.forget(name)
        return RunnerRemoved(used_by=[each.name for each in users])

    def require_idle(self, name: str) -> None:
        if busy := self.busy(name):
            raise ConflictError(f"{name} still runs {listed(busy)}", hint=f"wait, or: dstack stop {busy[0].run}")

    async def leave(self, runner: Runner, others: Sequence[Runner], *, keep_key: bool = False) -> None:
        """Remove what this server created on the machine, and check that nothing is left. What one of the `others` that
        may be the same machine uses stays."""
        if runner.facts is None:
            return
        if cleaning := self.engine.cleaning.get(runner.name):
            await asyncio.wait({cleaning})
        await self.store.database.synced()
        context, command = self.fleet.host_context(runner), None
        accounts = [each for each in others if each.facts and each.facts.user == runner.facts.user]
        keep_key = keep_key or any(each.authorized for each in accounts)
        if not any(same_folder(runner, each) for each in others):
            keep_images = any(same_engine(runner, each) for each in others)
            command = uninstall(context, shared=bool(others), keep_images=keep_images, keep_key=keep_key)
        elif not keep_key:
            command = revoke(context)
        left = await ask(self.fleet.host(runner), command, timeout=300) if command else []
        if left:
            raise HostError(f"still there: {', '.join(left)}")

    async def others(self, runner: Runner) -> Sequence[Runner]:
        """Return the other runners that may be the same machine, seen just now if they answer. One of `--local` counts
        only while it runs jobs, because nobody can remove it."""
        await self.fleet.check_all(each.name for each in sharing(runner, self.store.runners.all()))
        found = sharing(runner, self.store.runners.all())
        return [each for each in found if not each.hidden or self.busy(each.name)]

    def predecessor(self, runner: Runner, names: Sequence[str]) -> Runner | None:
        """Return the runner of the same inventory, one of `names`, whose new name this one is: the same account on the
        same machine, with the same folder and Docker. Only what can't be made up there counts: the host key and who
        logs in."""
        for old in map(self.store.runners.get, names):
            if old is None or old.hidden or old.source != runner.source or not maybe_same(old, runner):
                continue
            if (old.root, old.docker, old.host_key) != (runner.root, runner.docker, runner.host_key):
                continue
            with contextlib.suppress(HostError):
                if old.address.local == runner.address.local and login(old.address) == login(runner.address):
                    return old
        return None

    async def rename(self, old: Runner, new: Runner) -> None:
        """Give a runner a new name and definition. Its jobs go on."""
        if cleaning := self.engine.cleaning.get(old.name):
            await asyncio.wait({cleaning})
        with self.store.database.transaction():
            drained = None if old.drained == DROPPED else old.drained
            self.store.runners.rename(old.name, replace(new, max_jobs=old.max_jobs, drained=drained))
            self.store.hand_over(old.name, new.name)
            self.engine.context.store.restoration.renamed(old.name, new.name)
        await self.fleet.pool.close(old.name)
        self.fleet.forget(old.name)


def same_engine(one: Runner, other: Runner) -> bool:
    """Whether both may have the same Docker."""
    mine, theirs = (each.facts.engine if each.facts else "" for each in (one, other))
    return mine == theirs or not (mine and theirs)


def listed(jobs: Sequence[Job]) -> str:
    """Name jobs in a message."""
    return ", ".join(f"{job.workflow} of {job.run}" for job in jobs)
