"""The inventory as it is now: which runners answer, what they have, and what keeps them from running jobs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from anyio import move_on_after
from msgspec.structs import replace

from dstack.commands.command import Command
from dstack.commands.host import Host, ask
from dstack.commands.machine.doctor import skewed
from dstack.commands.machine.probe import probe
from dstack.commands.machine.take_stock import still_owned
from dstack.engine.fleet.condition import Condition
from dstack.engine.fleet.view import gpu_trouble, runner_view
from dstack.engine.supervisor import Supervisor
from dstack.errors import DstackError, HostKeyError, HostUnreachableError, OtherServerError, ServerTroubleError
from dstack.hosts.pool import Pool
from dstack.hosts.trust import own_host_keys
from dstack.model.api.runners import OrphanView, RunnerView
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.machine import machines
from dstack.model.runner.metrics import Use
from dstack.model.runner.runner import Facts, Finding, Runner
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import steady, time_of_day
from dstack.scheduling import reasons
from dstack.scheduling.types import IDLE, Load, Machine
from dstack.store.store import Store

FRESH = 5.0
"""Seconds for which the last probe is recent enough to be shown."""
LATE = 4.0
"""Seconds after which a runner that has not answered is shown as unreachable."""
PROBE_TIMEOUT = 30.0
THOROUGH_TIMEOUT = 120.0
REINSTALLED = "if the machine was reinstalled"
"""How the hint of a changed host key begins; the connection does not know how the runner was added."""
NOTHING = Command("measuring the latency", ":", lambda result: None)


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
        self.wake = asyncio.Event()
        self.returning: dict[str, asyncio.Event] = {}
        self.own_keys = own_host_keys()
        self._machines: tuple[int, dict[str, str]] = (-1, {})

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
        runner is in the result, never raised. A `thorough` probe logs in anew, and tests whether containers get the
        GPUs."""
        while thorough and name in self.probes:
            await asyncio.wait({self.probes[name]})
        last = self.conditions.get(name)
        if last and time.monotonic() - last.checked < fresh:
            return last
        if name not in self.probes:
            self.probes[name] = asyncio.create_task(self.probe(name, thorough=thorough))
            self.probes[name].add_done_callback(lambda _: self.probed(name))
            self.asked[name] = math.inf if thorough else time.monotonic()
        return await asyncio.shield(self.probes[name])

    def probed(self, name: str) -> None:
        del self.probes[name]
        self.wake.set()

    async def probe(self, name: str, *, thorough: bool = False) -> Condition:
        runner = self.store.runners.require(name)
        before = self.conditions.get(name)
        # What keeps jobs away is over only if a new login says so: an open one may be older than a group's change.
        blocked = before is not None and before.state == "unusable"
        try:
            facts, latency = await self.look(runner, thorough=thorough, anew=thorough or blocked)
        except HostUnreachableError as trouble:
            since = self.host(runner).answered or (before and before.silent_since) or steady()
            text = silent(since, trouble.message)
            condition = Condition("unreachable", text, trouble.hint, patient=True, silent_since=since)
        except DstackError as trouble:
            hint = trouble.hint
            if isinstance(trouble, HostKeyError) and hint and hint.startswith(REINSTALLED):
                hint = f"{REINSTALLED}: dstack runners remove --force {name}, then {runner.add_command}"
            condition = Condition("unusable", trouble.message, hint, patient=isinstance(trouble, OtherServerError))
            if isinstance(trouble, OtherServerError):
                self.doubted.add(name)
        else:
            state = "unusable" if facts.problem else "ready"
            condition = Condition(state, facts.problem, facts.fix, latency, patient=True, findings=facts.findings)
            await self.tasks.attempt(f"recording what {name} has", lambda: self.record(name, facts))
            if blocked and not facts.problem:
                await self.pool.close(name)
            if self.store.runners.get(name) and not facts.problem:
                condition = await self.greeted(name, condition)
        self.note(name, condition, before)
        return condition

    def note(self, name: str, condition: Condition, before: Condition | None) -> None:
        """Keep what a probe found, and wake up who waits for it."""
        condition.checked = time.monotonic()
        if condition.state != "ready":
            condition.failing_since = (before and before.failing_since) or time.monotonic()
            condition.failures = before.failures + 1 if before else 1
        elif name in self.returning and not (before and before.state == "ready"):
            self.returning.pop(name).set()
        self.conditions[name] = condition
        if before is None or before.state != condition.state:
            self.changed()

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

    async def look(self, runner: Runner, *, thorough: bool = False, anew: bool = False) -> tuple[Facts, float]:
        """Return the runner's facts, and how many seconds a round trip takes. Whether containers get the GPUs is only
        tested if the probe is `thorough`, or if the last test failed. `anew`: log in for this alone."""
        host = self.pool.anew(runner) if anew else self.host(runner)
        try:
            return await self.asked_on(host, runner, thorough=thorough)
        finally:
            if anew:
                await host.close()

    async def asked_on(self, host: Host, runner: Runner, *, thorough: bool) -> tuple[Facts, float]:
        again = bool(runner.facts and any(finding.name == "gpu-toolkit" for finding in runner.facts.findings))
        identity, thorough = self.store.identity.id, thorough or again
        command = probe(runner.root, runner.docker, identity, thorough=thorough, declared=runner.gpus)
        facts = await ask(host, command, timeout=THOROUGH_TIMEOUT if thorough else PROBE_TIMEOUT)
        skew = skewed(facts.clock, time.time()) if facts.clock else None
        facts = replace(facts, findings=(*facts.findings, *([skew] if skew else [])))
        start = time.monotonic()
        ours = runner.name in self.owned
        await ask(host, still_owned(self.host_context(runner)) if ours else NOTHING, timeout=PROBE_TIMEOUT)
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

    def recheck(self, name: str) -> None:
        """Offer a runner to no job until it was probed again, which happens now."""
        self.conditions.pop(name, None)
        self.wake.set()

    async def back(self, name: str, seconds: float, *, hurry: bool = False) -> None:
        """Return once a probe finds the runner ready after it was not, or after so many seconds. `hurry`: it has just
        stopped answering, so probe it now."""
        if hurry and name in self.conditions:
            self.conditions[name].checked = -math.inf
            self.wake.set()
        with move_on_after(seconds):
            await self.returning.setdefault(name, asyncio.Event()).wait()

    def now(self) -> list[Machine]:
        """Every runner, for the scheduler."""
        found = self.machines()
        return [
            Machine(
                one,
                self.trouble(one),
                one.facts.used if one.facts else {},
                gpu_trouble(one),
                self.load(one),
                found[one.name],
            )
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

    def hopeless(self, names: list[str], seconds: float) -> bool:
        """Whether none of these has let dstack in (no key is accepted, or the host key changed) for that long. Others
        are not counted, because they may recover: a runner that does not answer, where nothing listens, or that lacks
        something."""
        since = time.monotonic() - seconds
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

    def machines(self) -> dict[str, str]:
        """The machine of each runner."""
        runners = self.store.runners.all()
        if self._machines[0] != self.store.runners.edition:
            self._machines = (self.store.runners.edition, machines(runners, self.own_keys))
        return self._machines[1]

    def alike(self, name: str) -> list[str]:
        """The runners that are the same machine as this one, itself included."""
        found = self.machines()
        return [each for each, machine in found.items() if machine == found.get(name)] or [name]

    def views(self, runners: Iterable[Runner]) -> list[RunnerView]:
        """Runners as users see them. The unfinished jobs are gone through once for all of them."""
        jobs: dict[str, list[Job]] = {}
        for job in self.store.jobs.unfinished():
            jobs.setdefault(job.runner or "", []).append(job)
        return [self._view(runner, jobs) for runner in runners]

    def view(self, runner: Runner) -> RunnerView:
        """The runner as users see it."""
        return self.views([runner])[0]

    def _view(self, runner: Runner, jobs: Mapping[str, Sequence[Job]]) -> RunnerView:
        condition = self.conditions.get(runner.name) or Condition("unreachable", "not checked yet")
        late = runner.name in self.probes and time.monotonic() - self.asked[runner.name] > LATE / 2
        if condition.state == "ready" and late:  # it has not answered for most of the time that a list waits
            since = self.host(runner).answered or steady() - LATE / 2
            condition = Condition("unreachable", silent(since))
        alike = self.alike(runner.name)
        known = [self.store.runners.require(name) for name in alike if name != runner.name]
        return runner_view(
            runner,
            condition,
            [job for name in alike for job in jobs.get(name, ())],
            idle=self.absent(runner.name) if runner.drained is None else runner.drained,
            use=self.use(runner.name),
            orphans=self.orphans.get(runner.name, []),
            same_machine=[each.name for each in known if not each.hidden],
        )


def silent(since: float, trouble: str = "") -> str:
    """Why a runner is unreachable that has not answered since a moment (by `steady`, seconds)."""
    return f"no answer since {rfc3339(time_of_day(since))}" + (f": {trouble}" if trouble else "")


async def unasked(name: str) -> None:
    """Ask nothing."""
