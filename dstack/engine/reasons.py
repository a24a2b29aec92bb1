"""Why a job waits, in a sentence that is true. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstack.model.mounts import allowed
from dstack.model.quantities import ago_words, size_words
from dstack.model.resources import Ask
from dstack.model.runner import Runner

if TYPE_CHECKING:
    from dstack.engine.capacity import Capacity, Lease

SHOWN = 3
"""So many machines, or holders of one, are named; the others are counted."""


def nobody(pin: str | None, runners: tuple[str, ...]) -> str:
    """No machine is allowed."""
    if pin and runners:
        return f"no runner has the name or label '{pin}' and is one of {', '.join(runners)}"
    if pin:
        return f"no runner has the name or label '{pin}'"
    return f"no runner has the name or label {' or '.join(map(repr, runners))}" if runners else "no runner is known"


def no_mount(sources: tuple[str, ...], runners: Sequence[Runner]) -> str:
    """No machine lets jobs mount all of these folders: what the nearest one allows."""
    nearest = max(runners, key=lambda runner: sum(allowed(source, runner.allow_mounts) for source in sources))
    refused = [source for source in sources if not allowed(source, nearest.allow_mounts)]
    what = f"no runner lets it mount {' and '.join(refused)}"
    if not nearest.allow_mounts:
        return f"{what}: the owner of a machine allows that with dstack runners add --allow-mount DIR"
    return f"{what}; the nearest is {nearest.name}, which allows {', '.join(nearest.allow_mounts)}"


def too_much(ask: Ask, machines: Sequence[Capacity]) -> str:
    """No machine could hold it, however empty: what the nearest one has."""
    most = min(machines, key=lambda one: (short(ask, one), -len(one.gpus), -one.machine.cpus, -one.machine.memory))
    has = ask.gpus and most.count(ask)
    if ask.gpus and has < ask.gpus:
        if ask.gpu_name or ask.gpu_memory or ask.gpu_vendor or (most.gpus and not has):
            return f"it needs {ask.gpu_words}; the nearest is {most.name} with {gpus(most)}"
        return f"it needs {ask.gpu_words}; the most that a runner has is {has} ({most.name})"
    if most.machine.cpus < ask.cpu:
        return f"it needs {ask.words}; the nearest is {most.name} with {most.machine.cpus} CPUs"
    if most.machine.memory < ask.memory:
        facts = most.machine.runner.facts
        return f"it needs {ask.words}; the nearest is {most.name} with {size_words(facts.memory if facts else 0)}"
    return f"{most.name} takes no jobs that ask for no resources"


def short(ask: Ask, one: Capacity) -> tuple[float, ...]:
    """How far an empty machine is from holding it."""
    gpus = max(0, ask.gpus - one.count(ask))
    return gpus, max(0.0, ask.cpu - one.machine.cpus), max(0.0, ask.memory - one.machine.memory)


def gpus(one: Capacity) -> str:
    """`2x A100 of 40 GB`."""
    kinds = [f"{gpu.name or 'GPU'}" + (f" of {size_words(gpu.memory)}" if gpu.memory else "") for gpu in one.gpus]
    return ", ".join(f"{kinds.count(kind)}x {kind}" for kind in dict.fromkeys(kinds)) or "no GPU"


def limit(ask: Ask, user: str, has: int, most: int) -> str:
    """The user's share is used up."""
    return f"needs {ask.gpu_words}; {user} has {has} of the {most} that a user may have at once"


def blocked(ask: Ask, nearest: Sequence[Capacity], count: int, now: float) -> str:
    """What is in the way on the nearest of the machines that could hold it, of which there are so many."""
    told = [obstacle(ask, one, now) for one in nearest[:SHOWN]]
    if count > SHOWN:
        others = count - SHOWN
        told.append(f"{others} other {'runner' if others == 1 else 'runners'} can't take it now either")
    needs = f"needs {ask.words}; " if ask.words else ""
    return needs + "; ".join(told)


def obstacle(ask: Ask, one: Capacity, now: float) -> str:
    """Why it does not start on this machine."""
    if one.machine.trouble:
        return f"{one.name}: {one.machine.trouble}"
    if one.reserved and one.room(ask):
        first = one.reserved[0]
        return f"{one.name} keeps its free share for {whose(first.run, first.user)}, which goes first"
    if ask.gpus and len(one.matching(ask)) < ask.gpus:
        return gpu_obstacle(ask, one, now)
    if ask.cpu and one.cpu < ask.cpu:
        outside = f", {one.machine.load.cpu:g} are used outside of dstack" if one.machine.load.cpu else ""
        return f"{one.name} has {max(one.cpu, 0):g} of {one.cpus} CPUs free{holders(one, 'cpu', now)}{outside}"
    if ask.memory and one.memory < ask.memory:
        free, used = size_words(max(int(one.memory), 0)), one.machine.load.memory
        outside = f", {size_words(used)} are used outside of dstack" if used else ""
        return f"{one.name} has {free} of memory free{holders(one, 'memory', now)}{outside}"
    if one.disk < ask.disk:
        return f"{one.name} has {size_words(max(one.disk, 0))} of disk free"
    return f"{one.name} runs {sum(lease.ask.shares for lease in one.leases)} jobs already"


def gpu_obstacle(ask: Ask, one: Capacity, now: float) -> str:
    """How many GPUs are free, and who has the others."""
    if one.machine.gpu_trouble:
        return f"{one.name}: {one.machine.gpu_trouble}"
    wanted = [gpu.index for gpu in one.gpus if ask.takes(gpu)]
    free = len(one.matching(ask))
    parts = [f"{one.name} has {free} of {len(wanted)} free"]
    held = [lease for lease in one.leases if set(lease.gpus) & set(wanted)]
    parts += who(held, [len(set(lease.gpus) & set(wanted)) for lease in held], len(wanted), free, now)
    parts += [f"GPU {index} is used outside of dstack {one.machine.foreign[index]}" for index in foreign(one, wanted)]
    return ", ".join(parts)


def foreign(one: Capacity, wanted: Sequence[int]) -> list[int]:
    leased = {index for lease in one.leases for index in lease.gpus}
    return [index for index in wanted if index in one.machine.foreign and index not in leased]


def who(leases: Sequence[Lease], counts: Sequence[int], total: int, free: int, now: float) -> list[str]:
    """`the other runs brave-otter-7 of ann, started 2 h ago`."""
    told = []
    for lease, count in list(zip(leases, counts, strict=True))[:SHOWN]:
        verb = "runs" if count == 1 else "run"
        which = "the other" if count == total - free and free else f"{count}"
        if which == "the other" and count > 1:
            which = f"the other {count}"
        told.append(f"{which} {verb} {since(lease, now)}")
    if len(leases) > SHOWN:
        told.append(f"{len(leases) - SHOWN} more jobs have the rest")
    return told


def holders(one: Capacity, what: str, now: float) -> str:
    """Who has the most of the CPUs or the memory, and how many others have some."""
    held = [lease for lease in one.leases if getattr(lease.ask, what)]
    if not held:
        return ""
    most = max(held, key=lambda lease: float(getattr(lease.ask, what)))
    has = f"{most.ask.cpu:g}" if what == "cpu" else size_words(most.ask.memory)
    others = f", {len(held) - 1} more {'job has' if len(held) == 2 else 'jobs have'} some" if len(held) > 1 else ""
    return f", {has} {'is' if has == '1' else 'are'} held by {since(most, now)}{others}"


def since(lease: Lease, now: float) -> str:
    ending = " and ending now" if lease.ending else ""
    return f"{whose(lease.run, lease.user)}, started {ago_words(now - lease.since)}{ending}"


def whose(run: str, user: str) -> str:
    return f"{run} of {user}" if user else run
