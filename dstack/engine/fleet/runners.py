"""The inventory as it is now: which runners answer, what they have, and what keeps them from running jobs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from msgspec import convert
from msgspec.structs import replace

from dstack.commands.command import Command
from dstack.commands.host import Host, ask
from dstack.commands.machine.doctor import skewed
from dstack.commands.machine.probe import probe
from dstack.commands.machine.take_stock import still_owned
from dstack.engine.supervisor import Supervisor
from dstack.errors import DstackError, HostUnreachableError, OtherServerError, ServerTroubleError
from dstack.hosts.pool import Pool
from dstack.model.api.runners import AddRunner, OrphanView, RunnerView
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.metrics import Use
from dstack.model.runner.runner import Facts, Finding, Runner
from dstack.scheduling import reasons
from dstack.scheduling.capacity import Capacity
from dstack.scheduling.types import IDLE, Lease, Load, Machine
from dstack.store.store import Store

FRESH = 5.0
"""Seconds for which the last probe is recent enough to be shown."""
LATE = 4.0
"""Seconds after which a runner that has not answered is shown as unreachable."""
INTERVAL = 30.0
"""Seconds between two background probes of a runner; longer if probes are expensive there."""
RAREST = 300.0
"""Seconds after which a runner is probed again, whatever that costs."""
SAMPLING = 0.002
"""The share of a machine's CPUs that samples may use."""
LOOKING = 0.001
"""The share that probes may use."""
SESSION = 0.005
"""CPU seconds that sshd spends on one command over an open connection; the command itself can't measure them."""
PROBE_TIMEOUT = 30.0
THOROUGH_TIMEOUT = 120.0
NO_GPUS = {"gpu-toolkit": ReasonCode.NO_CONTAINER_TOOLKIT, "gpu-driver": ReasonCode.GPU_DRIVER}
"""Findings that keep jobs from the runner's GPUs."""
NOTHING = Command("measuring the latency", ":", lambda result: None)


@dataclass
class Condition:
    """The result of a runner's last probe. `checked` is in monotonic seconds, `failing_since` in wall clock seconds.
    `patient`: the runner may recover, so jobs wait for it."""

    state: str
    reason: str | None = None
    fix: str | None = None
    latency: float | None = None
    checked: float = 0.0
    failing_since: float | None = None
    patient: bool = False
    findings: tuple[Finding, ...] = ()


class Fleet:
    """Probes runners and keeps their conditions. `changed` is called when a runner's state changes. `absent` returns
    why a runner is not available now, `use` what it is doing, and `load` what is used on it outside dstack. On a runner
    in `unsure`, a job that was aborted while the runner did not answer may still be running.

    `greet` asks a runner what is there, once, before it gets any job; from then on it is in `owned`, and its
    scripts run only while no other server with this id has taken it. It is also in `doubted` once one has. `orphans`
    is what was found there that no job owns."""

    def __init__(self, store: Store, pool: Pool, changed: Callable[[], None]) -> None:
        self.store = store
        self.pool = pool
        self.changed = changed
        self.conditions: dict[str, Condition] = {}
        self.absent: Callable[[str], str | None] = lambda name: None
        self.use: Callable[[str], Use | None] = lambda name: None
        self.load: Callable[[Runner], Load] = lambda runner: IDLE
        self.probes: dict[str, asyncio.Task[Condition]] = {}
        self.asked: dict[str, float] = {}
        self.unsure = store.jobs.aborted_on()
        self.tasks = Supervisor()
        self.greet: Callable[[str], Awaitable[None]] = unasked
        self.owned: set[str] = set()
        self.doubted: set[str] = set()
        self.orphans: dict[str, list[OrphanView]] = {}

    def host(self, runner: Runner) -> Host:
        """The connection to a runner, which is kept open."""
        return self.pool.get(runner)

    def host_context(self, runner: Runner) -> HostContext:
        """Where this server's files are on the runner."""
        machine = runner.facts.machine if runner.facts else ""
        owner = self.store.identity.owner if runner.name in self.owned else ""
        return HostContext(HostLayout(runner.root, machine, self.store.identity.id), runner.docker, owner)

    async def check(self, name: str, *, fresh: float = 0.0, thorough: bool = False) -> Condition:
        """Probe a runner, or return the last probe if it is at most `fresh` seconds old. Whatever is wrong with the
        runner is in the result, never raised."""
        last = self.conditions.get(name)
        if last and time.monotonic() - last.checked < fresh:
            return last
        if name not in self.probes:
            self.probes[name] = asyncio.create_task(self.probe(name, thorough=thorough))
            self.probes[name].add_done_callback(lambda _: self.probes.pop(name, None))
            self.asked[name] = math.inf if thorough else time.monotonic()
        return await asyncio.shield(self.probes[name])

    async def probe(self, name: str, *, thorough: bool = False) -> Condition:
        runner = self.store.runners.require(name)
        before = self.conditions.get(name)
        try:
            facts, latency = await self.look(runner, thorough=thorough)
        except HostUnreachableError as trouble:
            condition = Condition("unreachable", trouble.message, trouble.hint, patient=True)
        except DstackError as trouble:
            condition = Condition(
                "unusable", trouble.message, trouble.hint, patient=isinstance(trouble, OtherServerError)
            )
            if isinstance(trouble, OtherServerError):
                self.doubted.add(name)
        else:
            state = "unusable" if facts.problem else "ready"
            condition = Condition(state, facts.problem, facts.fix, latency, patient=True, findings=facts.findings)
            await self.tasks.attempt(f"recording what {name} has", lambda: self.record(name, facts))
            if self.store.runners.get(name) and not facts.problem:
                condition = await self.greeted(name, condition)
        condition.checked = time.monotonic()
        if condition.state != "ready":
            condition.failing_since = (before and before.failing_since) or time.time()
        self.conditions[name] = condition
        if before is None or before.state != condition.state:
            self.changed()
        return condition

    async def record(self, name: str, facts: Facts) -> None:
        if self.store.runners.get(name):
            self.store.runners.change(name, facts=facts)

    async def greeted(self, name: str, condition: Condition) -> Condition:
        """Ask a runner what is there; return its condition after that."""
        try:
            await self.greet(name)
        except ServerTroubleError:
            return condition  # who launches a job there asks again
        except HostUnreachableError as trouble:
            return Condition("unreachable", trouble.message, trouble.hint, patient=True)
        except DstackError as trouble:
            return Condition("unusable", trouble.message, trouble.hint, patient=True)
        return condition

    async def look(self, runner: Runner, *, thorough: bool = False) -> tuple[Facts, float]:
        """Return the runner's facts, and how many seconds a round trip takes. Whether containers get the GPUs is only
        tested if the probe is `thorough`, or if the last test failed."""
        again = bool(runner.facts and any(finding.name == "gpu-toolkit" for finding in runner.facts.findings))
        command = probe(runner.root, runner.docker, self.store.identity.id, thorough=thorough or again)
        facts = await ask(self.host(runner), command, timeout=THOROUGH_TIMEOUT if thorough else PROBE_TIMEOUT)
        skew = skewed(facts.clock, time.time()) if facts.clock else None
        facts = replace(facts, findings=(*facts.findings, *([skew] if skew else [])))
        start = time.monotonic()
        ours = runner.name in self.owned
        await ask(self.host(runner), still_owned(self.host_context(runner)) if ours else NOTHING, timeout=PROBE_TIMEOUT)
        return facts, time.monotonic() - start

    async def check_all(self, names: Iterable[str], *, fresh: float = FRESH, patience: float = LATE) -> None:
        """Probe all of these runners whose last probe is older than `fresh` seconds, in parallel. Returns after at
        most `patience` seconds; slower probes continue in the background."""
        checks = [asyncio.ensure_future(self.tried(name, fresh=fresh)) for name in names]
        if checks:
            await asyncio.wait(checks, timeout=patience)

    async def tried(self, name: str, *, fresh: float) -> None:
        """Check a runner. A failure of the check itself is told, and in nobody else's way."""
        await self.tasks.attempt(f"probing {name}", lambda: self.check(name, fresh=fresh))

    def ready(self, name: str) -> bool:
        """Whether the runner's last probe found nothing that keeps it from running jobs."""
        return name in self.conditions and self.conditions[name].state == "ready"

    async def watch(self) -> None:
        """Keep conditions up to date while a job may be placed, and on runners that still have to be cleaned up."""
        while True:
            wanted = self.store.runners.all()
            if not self.store.jobs.unfinished():
                left = self.store.jobs.left_on()
                wanted = [runner for runner in wanted if runner.name in left]
            rests = {runner.name: rest(self.ready(runner.name), runner.facts) for runner in wanted}
            await asyncio.gather(*(self.tried(name, fresh=fresh) for name, fresh in rests.items()))
            await asyncio.sleep(INTERVAL / 3)

    def now(self) -> list[Machine]:
        """Every runner, for the scheduler."""
        return [
            Machine(one, self.trouble(one), one.facts.used if one.facts else {}, gpu_trouble(one), self.load(one))
            for one in self.store.runners.all()
        ]

    def trouble(self, runner: Runner) -> Reason | None:
        """Why the runner takes no jobs now, in words that follow "NAME is"."""
        condition = self.conditions.get(runner.name)
        if condition is None:
            return reasons.UNCHECKED
        if condition.state != "ready":
            return reasons.not_ready(condition.state, condition.reason)
        if runner.drained is not None:
            return reasons.not_ready("drained", runner.drained)
        absent = self.absent(runner.name)
        return reasons.not_ready("unavailable", absent) if absent is not None else None

    @property
    def refused(self) -> bool:
        return any(found.failing_since and not found.patient for found in self.conditions.values())

    def hopeless(self, names: list[str], since: float) -> bool:
        """Whether none of these has let dstack in (no key is accepted, or the host key changed) since before `since`
        (wall clock, seconds). Others are not counted, because they may recover: a runner that does not answer, where
        nothing listens, or that lacks something."""
        known = [self.conditions.get(name) for name in names]
        return bool(known) and all(c and c.failing_since and not c.patient and c.failing_since <= since for c in known)

    def mark(self, name: str, finding: Finding) -> None:
        """Record what a job found wrong with a runner, until a probe finds it fixed."""
        runner = self.store.runners.require(name)
        if runner.facts is None:
            return
        others = tuple(each for each in runner.facts.findings if each.name != finding.name)
        facts = replace(runner.facts, findings=(*others, finding))
        self.store.runners.change(name, facts=facts)
        if name in self.conditions:
            self.conditions[name].findings = facts.findings

    def forget(self, name: str) -> None:
        self.conditions.pop(name, None)
        self.owned.discard(name)
        self.doubted.discard(name)
        self.orphans.pop(name, None)

    def view(self, runner: Runner) -> RunnerView:
        condition = self.conditions.get(runner.name) or Condition("unreachable", "not checked yet")
        late = runner.name in self.probes and time.monotonic() - self.asked[runner.name] > LATE / 2
        if condition.state == "ready" and late:  # it has not answered for most of the time that a list waits
            condition = Condition("unreachable", f"it has not answered for {LATE:g} seconds")
        facts = runner.facts or Facts(machine="")
        machine = Machine(runner, foreign=facts.used, gpu_trouble=gpu_trouble(runner))
        jobs = [job for job in self.store.jobs.unfinished() if job.runner == runner.name]
        leases = [Lease(job.id, runner.name, job.run, gpus=job.gpus) for job in jobs]
        idle = self.absent(runner.name) if runner.drained is None else runner.drained
        drained = condition.state == "ready" and idle is not None
        address = replace(runner.address, identity=None) if runner.authorized else runner.address
        again = replace(convert(runner, AddRunner, from_attributes=True), address=address)
        return RunnerView(
            name=runner.name,
            address=str(runner.address),
            state="drained" if drained else condition.state,
            reason=idle if drained else condition.reason,
            fix=condition.fix,
            labels=list(runner.labels),
            cpus=facts.cpus,
            memory=facts.memory,
            gpus=list({gpu.index: gpu for gpu in (*machine.gpus, *facts.gpus)}.values()),
            disk_free=facts.disk_free,
            jobs=[job.id for job in jobs],
            gpus_free=len(Capacity(machine, 0, leases).free),
            latency_ms=round(condition.latency * 1000, 1) if condition.latency is not None else None,
            host_key=runner.host_key,
            findings=list(condition.findings),
            drained=runner.drained,
            definition=again,
            use=self.use(runner.name),
            allow_mounts=list(runner.allow_mounts),
            orphans=self.orphans.get(runner.name, []),
        )


async def unasked(name: str) -> None:
    """Ask nothing."""


def rest(ready: bool, facts: Facts | None) -> float:
    """Seconds between two background probes: longer if they are expensive. A runner that takes no jobs is not sampled,
    so its probes may use the samples' share."""
    costs = pause(facts.cost, facts.cpus, LOOKING if ready else SAMPLING) if facts else 0.0
    return max(INTERVAL * (5 / 6 if ready else 1 / 2), min(costs, RAREST))


def pause(cost: float, cpus: int, share: float) -> float:
    """Seconds between two commands of this cost (in CPU seconds) that keep to the share of a machine's CPUs."""
    return (cost + SESSION) / (share * max(cpus, 1))


def gpu_trouble(runner: Runner) -> Reason | None:
    """Why no job gets the runner's GPUs, if it has any."""
    findings = [found for found in (runner.facts.findings if runner.facts else ()) if found.name in NO_GPUS]
    return Reason(NO_GPUS[findings[0].name], f"{findings[0].what}; {findings[0].fix}") if findings else None
