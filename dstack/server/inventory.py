"""Adds, checks and removes runners."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dstack.commands.leave import leave
from dstack.commands.place import Place
from dstack.commands.probe import probe
from dstack.engine.engine import Engine
from dstack.engine.machines import PROBE_TIMEOUT, Machines
from dstack.errors import ConflictError, HostError, HostUnreachableError, UsageError
from dstack.hosts.host import ask
from dstack.hosts.trust import fingerprint, known_keys, offered_key
from dstack.model.api import AddRunner, RunnerView
from dstack.model.paths import HostLayout
from dstack.model.runner import DEFAULT_ROOT, Address, Runner
from dstack.store import Store

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class UnknownHostKeyError(HostError):
    """Nobody vouched for the key that the host shows."""

    def __init__(self, address: Address, shown: str) -> None:
        super().__init__(
            f"the host key of {address} is not known: {shown}",
            hint=f"compare it on the machine, then: dstack runners add {address} --fingerprint {shown}",
        )
        self.fingerprint = shown


@dataclass
class Inventory:
    """The runners, as a user changes them."""

    store: Store
    machines: Machines
    engine: Engine

    async def list(self) -> list[RunnerView]:
        """All runners but those that only `--local` made, freshly checked."""
        await self.machines.check_all()
        return [self.machines.view(runner) for runner in self.store.runners.all() if not runner.hidden]

    async def add(self, request: AddRunner) -> RunnerView:
        """Check a machine and record it. Raises UnknownHostKeyError until its key is vouched for, HostError for a
        machine that can't run jobs: then it was not added."""
        name = request.name or default_name(request.address)
        self.check_name(name, request.address)
        runner = Runner(
            name=name,
            address=request.address,
            labels=request.labels,
            gpus=request.gpus,
            max_jobs=request.max_jobs,
            root=request.root or DEFAULT_ROOT,
            docker=request.docker or "docker",
            host_key=None if request.address.local else await self.trusted(request),
        )
        facts = await ask(self.machines.host(runner), probe(runner.root, runner.docker), timeout=PROBE_TIMEOUT)
        if facts.problem:
            await self.machines.pool.close(name)
            raise HostError(f"{request.address} can't run jobs: {facts.problem}; it was not added", hint=facts.fix)
        before = self.store.runners.get(name)
        if before and before.hidden:
            self.store.runners.change(name, hidden=False, labels=runner.labels, gpus=runner.gpus, facts=facts)
        else:
            self.store.runners.add(runner)
            self.store.runners.change(name, facts=facts)
        await self.machines.check(name)
        self.engine.poke()
        return self.machines.view(self.store.runners.require(name))

    def check_name(self, name: str, address: Address) -> None:
        """Raise UsageError for a name that can't be, ConflictError for one that is taken."""
        if not NAME.fullmatch(name):
            raise UsageError(f"'{name}' can't be a runner's name: letters, digits, '.', '_' and '-'")
        if name == "local" and not address.local:
            raise UsageError("the name 'local' is kept for this machine", hint="choose another --name")
        before = self.store.runners.get(name)
        if before and not before.hidden:
            raise ConflictError(
                f"a runner of the name '{name}' exists already ({before.address})",
                hint=f"choose another --name, or: dstack runners remove {name}",
            )

    async def trusted(self, request: AddRunner) -> str:
        """The host's key, vouched for by the fingerprint in the request or by known_hosts."""
        key = await offered_key(request.address)
        shown = fingerprint(key)
        if request.fingerprint is None and key not in known_keys(request.address):
            raise UnknownHostKeyError(request.address, shown)
        if request.fingerprint not in (None, shown):
            raise UsageError(
                f"{request.address} shows the host key {shown}, not {request.fingerprint}; nothing was sent to it",
                hint="look at the machine: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            )
        return key

    async def check(self, name: str) -> RunnerView:
        """Look at a machine now."""
        self.store.runners.require(name)
        await self.machines.check(name)
        self.engine.poke()
        return self.machines.view(self.store.runners.require(name))

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Take everything of this server off the machine, then forget it. Raises ConflictError while jobs run there,
        HostUnreachableError when it can't be cleaned (`force` forgets it all the same)."""
        runner = self.store.runners.require(name)
        jobs = [job for job in self.store.jobs.unfinished() if job.runner == name]
        if jobs:
            listed = ", ".join(f"{job.workflow} of {job.run}" for job in jobs)
            raise ConflictError(f"{name} still runs {listed}", hint=f"dstack stop {jobs[0].run}, or wait")
        try:
            await self.leave(runner)
        except HostError as trouble:
            if not force:
                message = f"{name} could not be cleaned, so it was not removed: {trouble.message}"
                hint = f"bring it back, or forget it: dstack runners remove --force {name}"
                raise HostUnreachableError(message, hint=hint) from trouble
        await self.machines.pool.close(name)
        self.store.runners.remove(name)
        self.machines.forget(name)

    async def leave(self, runner: Runner) -> None:
        """Remove what this server made on the machine, and see that it is gone."""
        if runner.facts is None:
            return
        place = Place(HostLayout(runner.root, runner.facts.machine, self.store.settings.server_id), runner.docker)
        left = await ask(self.machines.host(runner), leave(place), timeout=300)
        if left.names:
            raise HostError(f"these could not be removed: {', '.join(left.names)}")


def default_name(address: Address) -> str:
    """A runner's name where none is given: the host without user, domain kept, what a name can't hold replaced."""
    return "local" if address.host is None else re.sub(r"[^A-Za-z0-9._-]+", "-", address.host).strip("-.")
