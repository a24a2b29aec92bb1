"""Why a job waits, in one sentence that is true. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstack.model.job.resources import Ask
from dstack.model.runner.mounts import allowed
from dstack.model.runner.runner import Runner
from dstack.model.text.units import ago_words, memory_words, size_words

if TYPE_CHECKING:
    from dstack.scheduling.capacity import Capacity
    from dstack.scheduling.types import Lease

SHOWN = 3
"""How many runners, or jobs on a runner, are named; the others are counted."""


def nobody(pin: str | None, runners: tuple[str, ...]) -> str:
    """No runner is allowed."""
    if pin and runners:
        return f"no runner that the workflow allows ({', '.join(runners)}) has the name or label '{pin}'"
    if pin:
        return f"no runner has the name or label '{pin}'"
    if runners:
        return f"no runner has the name or label {' or '.join(map(repr, runners))}"
    return "no runner has been added yet"


def no_mount(sources: tuple[str, ...], runners: Sequence[Runner]) -> str:
    """No runner allows all of these mounts: what the closest one allows."""
    nearest = max(runners, key=lambda runner: sum(allowed(source, runner.allow_mounts) for source in sources))
    refused = [source for source in sources if not allowed(source, nearest.allow_mounts)]
    what = f"no runner allows mounting {' and '.join(refused)}"
    if not nearest.allow_mounts:
        return f"{what}; to allow it: dstack runners set NAME --allow-mount DIR"
    return f"{what}; the closest is {nearest.name}, which allows {', '.join(nearest.allow_mounts)}"


def too_much(ask: Ask, machines: Sequence[Capacity]) -> str:
    """No runner could hold it, even when empty: what the closest one has."""
    most = min(machines, key=lambda one: (short(ask, one), -len(one.gpus), -one.machine.cpus, -one.machine.memory))
    has = ask.gpus and most.count(ask)
    if ask.gpus and has < ask.gpus:
        if ask.gpu_name or ask.gpu_memory or ask.gpu_vendor or (most.gpus and not has):
            return f"it needs {ask.gpu_words}; the closest runner is {most.name} with {gpus(most)}"
        return f"it needs {ask.gpu_words}; no runner has more than {has} ({most.name})"
    if most.machine.cpus < ask.cpu:
        return f"it needs {ask.words}; the closest runner is {most.name} with {most.machine.cpus} CPUs"
    if most.machine.memory < ask.memory:
        facts = most.machine.runner.facts
        memory = memory_words(facts.memory if facts else 0)
        return f"it needs {ask.words}; the closest runner is {most.name} with {memory}"
    return f"{most.name} only takes jobs that request CPUs, memory or GPUs"


def short(ask: Ask, one: Capacity) -> tuple[float, ...]:
    """How much an empty runner lacks to hold it."""
    gpus = max(0, ask.gpus - one.count(ask))
    return gpus, max(0.0, ask.cpu - one.machine.cpus), max(0.0, ask.memory - one.machine.memory)


def gpus(one: Capacity) -> str:
    """`2x A100 of 40 GB`."""
    kinds = [f"{gpu.name or 'GPU'}" + (f" of {memory_words(gpu.memory)}" if gpu.memory else "") for gpu in one.gpus]
    return ", ".join(f"{kinds.count(kind)}x {kind}" for kind in dict.fromkeys(kinds)) or "no GPU"


def limit(ask: Ask, user: str, has: int, most: int) -> str:
    """The user has reached the limit."""
    return f"needs {ask.gpu_words}; {user} already has {has} of the {most} GPUs allowed per user"


def blocked(ask: Ask, nearest: Sequence[Capacity], count: int, now: float) -> str:
    """What is in the way on the nearest of the `count` runners that could hold it."""
    obstacles = [obstacle(ask, one, now) for one in nearest[:SHOWN]]
    if count > SHOWN:
        others = count - SHOWN
        obstacles.append(f"{others} other {'runner' if others == 1 else 'runners'} can't take it now either")
    needs = f"needs {ask.words}; " if ask.words else ""
    return needs + "; ".join(obstacles)


def obstacle(ask: Ask, one: Capacity, now: float) -> str:
    """Why it does not start on this runner."""
    if one.machine.trouble:
        return f"{one.name} is {one.machine.trouble}"
    if one.reserved and one.room(ask):
        first = one.reserved[0]
        return f"{one.name} keeps its free share for {whose(first.run, first.user)}, which is ahead in the queue"
    if ask.gpus and len(one.matching(ask)) < ask.gpus:
        return gpu_obstacle(ask, one, now)
    if ask.cpu and one.cpu < ask.cpu:
        outside = f", {one.machine.load.cpu:g} are used outside dstack" if one.machine.load.cpu else ""
        return f"{one.name} has {max(one.cpu, 0):g} of {one.cpus} CPUs free{holders(one, 'cpu', now)}{outside}"
    if ask.memory and one.memory < ask.memory:
        free, used = memory_words(max(int(one.memory), 0)), one.machine.load.memory
        outside = f", {memory_words(used)} are used outside dstack" if used else ""
        return f"{one.name} has {free} of memory free{holders(one, 'memory', now)}{outside}"
    if one.disk < ask.disk:
        return f"{one.name} has {size_words(max(one.disk, 0))} of disk free"
    return f"{one.name} already runs {sum(lease.ask.shares for lease in one.leases)} jobs, its limit"


def gpu_obstacle(ask: Ask, one: Capacity, now: float) -> str:
    """How many GPUs are free, and who has the others."""
    if one.machine.gpu_trouble:
        return f"{one.name}: {one.machine.gpu_trouble}"
    wanted = [gpu.index for gpu in one.gpus if ask.takes(gpu)]
    kind = "GPUs" if len(wanted) == len(one.gpus) else "matching GPUs"
    parts = [f"{one.name} has {len(one.matching(ask))} of {len(wanted)} {kind} free"]
    held = [(lease, len(set(lease.gpus) & set(wanted))) for lease in one.leases if set(lease.gpus) & set(wanted)]
    parts += [holds(lease, f"{count}", now) for lease, count in held[:SHOWN]]
    if len(held) > SHOWN:
        others = len(held) - SHOWN
        parts.append(f"{others} other {'job holds' if others == 1 else 'jobs hold'} the rest")
    parts += [f"GPU {index} is used outside dstack {one.machine.foreign[index]}" for index in foreign(one, wanted)]
    return ", ".join(parts)


def foreign(one: Capacity, wanted: Sequence[int]) -> list[int]:
    leased = {index for lease in one.leases for index in lease.gpus}
    return [index for index in wanted if index in one.machine.foreign and index not in leased]


def holders(one: Capacity, what: str, now: float) -> str:
    """Who holds most of the CPUs or the memory, and how many others hold some."""
    held = [lease for lease in one.leases if getattr(lease.ask, what)]
    if not held:
        return ""
    most = max(held, key=lambda lease: float(getattr(lease.ask, what)))
    amount = f"{most.ask.cpu:g}" if what == "cpu" else memory_words(most.ask.memory)
    others = f", {len(held) - 1} other {'job holds' if len(held) == 2 else 'jobs hold'} some" if len(held) > 1 else ""
    return f", {holds(most, amount, now)}{others}"


def holds(lease: Lease, amount: str, now: float) -> str:
    """`ann's brave-otter-7 holds 2 (started 2 h ago)`."""
    ending = ", ending now" if lease.ending else ""
    return f"{whose(lease.run, lease.user)} holds {amount} (started {ago_words(now - lease.since)}{ending})"


def whose(run: str, user: str) -> str:
    return f"{user}'s {run}" if user else run
