"""Adds, checks and removes runners."""

from __future__ import annotations

import math
import re

from msgspec.structs import asdict, replace

from dstack.commands.artifacts.retain import free
from dstack.commands.host import ask
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import FRESH
from dstack.engine.fleet.sampling import Sampler
from dstack.errors import (
    ConflictError,
    ErrorCode,
    HostError,
    NotFoundError,
    UnknownHostKeyError,
    UsageError,
)
from dstack.hosts.trust import known_keys
from dstack.model.api.runners import AddRunner, Clean, Drain, RunnerView
from dstack.model.runner.machine import maybe_same, same_folder
from dstack.model.runner.runner import Address, Runner, fingerprint
from dstack.server.roles import check_runner
from dstack.server.runners.definition import default_name, folders, root_of, unfit
from dstack.server.runners.removal import Removal, listed

LOOK = 1.0
"""Seconds for which a metrics sample is fresh enough to show."""
CLEANING = 300.0
"""Seconds for the removal of artifacts."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunnerService:
    """Lists, adds, changes and removes runners for users."""

    def __init__(self, engine: Engine, metrics: Sampler) -> None:
        self.engine, self.metrics = engine, metrics
        self.store, self.fleet = engine.store, engine.context.fleet
        self.identity = engine.context.layout.identity
        self.removal = Removal(engine)

    async def list(self, *, fresh: float = FRESH) -> list[RunnerView]:
        """Return all runners except the hidden one of `--local`, as seen at most `fresh` seconds ago; `inf` means as
        last seen."""
        if fresh != math.inf:
            await self.fleet.check_all((runner.name for runner in self.store.runners.all()), fresh=fresh)
            await self.metrics.look_at_all(fresh=LOOK)
        return self.fleet.views(runner for runner in self.store.runners.all() if not runner.hidden)

    async def add(self, request: AddRunner) -> RunnerView:
        """Check a machine and record it as a runner. Raises UnknownHostKeyError for a key that is not trusted yet, and
        HostError for a machine that can't run jobs; neither is added. ForbiddenError: see `check_runner`."""
        check_runner(request, self.identity)
        name = request.name or default_name(request.address, self.taken)
        self.check_name(name, request.address)
        runner = self.defined(Runner(name=name, address=request.address), request)
        runner = replace(runner, host_key=await self.trusted(request))
        try:
            facts, _ = await self.fleet.look(runner, thorough=True)
            if facts.problem:
                raise unfit(request.address, facts)
        except HostError:
            await self.fleet.pool.close(name)
            raise
        runner = replace(runner, facts=facts)
        before = self.store.runners.get(name)
        if before is None and (old := self.removal.predecessor(runner, request.replaces)):
            await self.removal.rename(old, runner)
            return replace(await self.checked(name), renamed_from=old.name)
        if before and before.hidden:
            given = {field: getattr(runner, field) for field in ("labels", "gpus", "max_jobs", "allow_mounts")}
            self.store.runners.change(name, hidden=False, facts=facts, **given)
        else:
            self.store.runners.add(runner)
        return await self.checked(name)

    def defined(self, runner: Runner, request: AddRunner) -> Runner:
        """Return the runner as the request defines it. The key to log in with is the server's own one if the machine
        accepts that."""
        address = request.address
        if request.authorized:
            address = replace(address, identity=str(self.identity), jump_identity=None)
        return replace(
            runner,
            address=address,
            labels=request.labels,
            gpus=request.gpus,
            max_jobs=request.max_jobs,
            root=root_of(request),
            docker=request.docker or "docker",
            authorized=request.authorized,
            source=request.source,
            allow_mounts=folders(request.allow_mounts),
        )

    def taken(self, name: str) -> bool:
        """Whether a runner that users see has this name."""
        before = self.store.runners.get(name)
        return before is not None and not before.hidden

    def check_name(self, name: str, address: Address) -> None:
        """Raise UsageError for an invalid name, ConflictError for one that is taken."""
        if not NAME.fullmatch(name):
            hint = "use letters, digits, '.', '_' and '-'; start with a letter or a digit"
            raise UsageError(f"'{name}' is not a valid runner name", hint=hint)
        if name == "local" and not address.local:
            raise UsageError("the name 'local' is reserved for the server's own machine", hint="choose another --name")
        if self.taken(name):
            before = self.store.runners.require(name)
            hint = f"to use another name, add --name OTHER; to replace that runner, first: dstack runners remove {name}"
            raise ConflictError(f"a runner named '{name}' already exists ({before.address})", hint=hint)

    async def trusted(self, request: AddRunner) -> str | None:
        """Return the host's key, trusted by the request's fingerprint, known_hosts or a certificate authority there;
        None for the server's own machine."""
        if request.address.local:
            return None
        key = await self.fleet.pool.dialer.offered_key(request.address)
        shown = fingerprint(key)
        known = known_keys(request.address) if request.fingerprint is None else []
        if request.fingerprint is None and key not in known:
            certified = await self.fleet.pool.dialer.certified_key(request.address)
            if certified is None:
                others = f"known_hosts has another one, {', '.join(map(fingerprint, known))}, not {shown}"
                message = f"the host key of {request.address} is not trusted yet: {others if known else shown}"
                hint = f"if the machine has this key, add --fingerprint {shown}"
                raise UnknownHostKeyError(message, hint=hint, fingerprint=shown)
            return certified
        if request.fingerprint not in (None, shown):
            raise UsageError(
                f"the host key of {request.address} is {shown}, not {request.fingerprint}; nothing was sent to it",
                hint="on the machine, compare: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
                code=ErrorCode.HOST_KEY,
            )
        return key

    async def check(self, name: str) -> RunnerView:
        """Check a runner's machine now, and what is on it."""
        self.store.runners.require(name)
        view = await self.checked(name, thorough=True)
        if view.state not in ("ready", "drained"):
            return view
        await self.engine.reconciler.look(name)
        return self.fleet.view(self.store.runners.require(name))

    async def clean(self, name: str, wish: Clean) -> RunnerView:
        """Remove orphans from a runner, running or not. Raises NotFoundError if one of the names is none."""
        runner = self.store.runners.require(name)
        await self.engine.reconciler.look(name)
        orphans = {orphan.name: orphan for orphan in self.fleet.orphans[name]}
        for unknown in (each for each in wish.names if each not in orphans):
            message = f"{name} has no orphan '{unknown}'; nothing was removed"
            raise NotFoundError(message, hint=f"dstack runners check {name}")
        host, here = self.fleet.host(runner), self.fleet.host_context(runner)
        for each in dict.fromkeys(wish.names):
            if orphans[each].what == "artifacts":
                await ask(host, free(here, [each], 0), timeout=CLEANING)
            else:
                await self.engine.context.executors[runner.kind](runner, host, here).discard(each, "")
        await self.engine.reconciler.look(name)
        return self.fleet.view(runner)

    async def checked(self, name: str, *, thorough: bool = False) -> RunnerView:
        await self.fleet.check(name, thorough=thorough)
        self.engine.poke()
        return self.fleet.view(self.store.runners.require(name))

    async def change(self, name: str, request: AddRunner) -> RunnerView:
        """Change a runner's definition. While jobs run there, its machine, root and docker can't change. If the machine
        can't run jobs under the new definition, nothing changes."""
        before = self.store.runners.require(name)
        check_runner(request, self.identity, before)
        after = self.defined(before, request)
        if (after.address.host, after.address.port) != (before.address.host, before.address.port):
            after = replace(after, host_key=await self.trusted(request))
        if (after.root, after.docker, after.address) != (before.root, before.docker, before.address):
            after = await self.moved(before, after)
        changed = {field: value for field, value in asdict(after).items() if field not in ("name", "drained")}
        self.store.runners.change(name, **changed)
        return await self.checked(name, thorough=after.gpus != before.gpus)

    async def moved(self, before: Runner, after: Runner) -> Runner:
        """Check that the machine can run jobs under the new definition, and that it is still the one that runs jobs."""
        aside = replace(after, name=f"{after.name} (as changed)")
        try:
            facts, _ = await self.fleet.look(aside, thorough=True)
        finally:
            await self.fleet.pool.close(aside.name)
        if facts.problem:
            raise unfit(after.address, facts, "was not changed")
        after = replace(after, facts=facts)
        other = before.facts is not None and not maybe_same(before, after)
        if other or before.docker != after.docker or not same_folder(before, after):
            if busy := self.removal.busy(before.name):
                settings = other or (before.root, before.docker) != (after.root, after.docker)
                what = "another machine, root or docker" if settings else "another account"
                message = f"{before.name} can't be changed to {what} while it runs {listed(busy)}"
                hint = f"type `dstack runners drain {before.name} --wait`, then the same command again"
                raise ConflictError(message, hint=hint)
            same_account = before.facts is not None and before.facts.user == facts.user
            others = await self.removal.others(before)
            await self.removal.leave(before, others, keep_key=same_account and not other)
        return after

    def drain(self, name: str, wish: Drain) -> RunnerView:
        """Give the runner no new jobs. The jobs that it runs continue."""
        return self.marked(name, wish.reason)

    def resume(self, name: str) -> RunnerView:
        """Undo a drain."""
        return self.marked(name, None)

    def marked(self, name: str, drained: str | None) -> RunnerView:
        runner = self.store.runners.change(name, drained=drained)
        self.engine.poke()
        return self.fleet.view(runner)
