"""Probes the runners now and then, as often as it is worth there."""

from __future__ import annotations

import time
from functools import partial

from anyio import move_on_after

from dstack.engine.fleet.condition import Condition
from dstack.engine.fleet.runners import Fleet
from dstack.model.runner.runner import Facts, Runner

INTERVAL = 30.0
"""Seconds between two background probes of a runner; longer if probes are expensive there."""
FIRST_PAUSE = 1.0
"""Seconds after which a runner that has just failed is probed again; then twice as long each time."""
SHORTEST_PAUSE = 0.25
"""Seconds between two looks at which runners have to be probed."""
RAREST = 300.0
"""Seconds after which a runner is probed again, whatever that costs."""
SAMPLING = 0.002
"""The share of a machine's CPUs that samples may use."""
LOOKING = 0.001
"""The share that probes may use."""
SESSION = 0.005
"""CPU seconds that sshd spends on one command over an open connection; the command itself can't measure them."""


class Watch:
    """Keeps conditions up to date while a job may be placed, and on runners that still have to be cleaned up. A runner
    that does not answer delays the probes of no other."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.store = fleet.store
        self.tasks = fleet.tasks

    async def run(self) -> None:
        while True:
            self.fleet.wake.clear()
            due = {runner.name: self.due(runner) for runner in self.watched()}
            for name in [name for name, left in due.items() if left <= 0 and name not in self.fleet.probes]:
                self.tasks.start(f"probing {name}", partial(self.fleet.check, name), once=True)
            left = min([INTERVAL / 3, *(left for left in due.values() if left > 0)])
            with move_on_after(max(SHORTEST_PAUSE, left)):
                await self.fleet.wake.wait()

    def watched(self) -> list[Runner]:
        """The runners that have to be probed."""
        if self.store.jobs.unfinished():
            return self.store.runners.all()
        left = self.store.jobs.left_on()
        return [runner for runner in self.store.runners.all() if runner.name in left]

    def due(self, runner: Runner) -> float:
        """Seconds until a runner has to be probed again."""
        if trouble := self.tasks.resting(f"probing {runner.name}"):
            return trouble.again - time.monotonic()
        last = self.fleet.conditions.get(runner.name)
        return last.checked + rest(last, runner.facts) - time.monotonic() if last else 0.0


def rest(last: Condition, facts: Facts | None) -> float:
    """Seconds between two background probes: longer if they are expensive. A runner that takes no jobs is not sampled,
    so its probes may use the samples' share; where nothing answers, they cost nothing. A short outage costs few
    seconds: the first probes after a failure follow each other soon."""
    ready = last.state == "ready"
    costs = pause(facts.cost, facts.cpus, LOOKING if ready else SAMPLING) if facts else 0.0
    costs = 0.0 if last.state == "unreachable" else min(costs, RAREST)
    usual = max(INTERVAL * (5 / 6 if ready else 1 / 2), costs)
    soon = FIRST_PAUSE * 2.0 ** (last.failures - 1)
    return usual if ready or soon > INTERVAL / 2 else soon


def pause(cost: float, cpus: int, share: float) -> float:
    """Seconds between two commands of this cost (in CPU seconds) that keep to the share of a machine's CPUs."""
    return (cost + SESSION) / (share * max(cpus, 1))
