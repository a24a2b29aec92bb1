"""Why a job waits in the queue or leaves it, in one sentence that is true. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.resources import Ask
from dstack.model.job.status import Status
from dstack.model.runner.mounts import allowed
from dstack.model.runner.runner import Runner
from dstack.model.text.units import ago_words, memory_words, size_words, span_words
from dstack.scheduling.capacity import Capacity
from dstack.scheduling.types import Lease, Waiting

ENDED = {Status.FAILED: "failed", Status.STOPPED: "was stopped", Status.LOST: "was lost"}
SHOWN = 3
"""How many runners, or jobs on a runner, are named; the others are counted."""


TROUBLES = {
    "unreachable": ReasonCode.RUNNER_UNREACHABLE,
    "unusable": ReasonCode.RUNNER_UNUSABLE,
    "drained": ReasonCode.RUNNER_DRAINED,
    "unavailable": ReasonCode.RUNNER_UNAVAILABLE,
}
UNCHECKED = Reason(ReasonCode.RUNNER_BEING_CHECKED, "being checked")
STOPPED_EARLY = "stopped before it started"


CHOICES = {
    "asked-for": "the run asks for a runner with this name or label",
    "only-choice": "it is the only runner that may and can run the job",
    "room-was-made": "a job of lower priority gave way to it there",
    "has-most-of-it": "it already had the most of the job's code, image and inputs",
    "fullest-fit": "it had the fewest free GPUs among the runners on which the job fits, which keeps the others free",
    "least-busy": "it was the least busy runner",
}
"""Why a job got its runner, by code."""


def choice(job: Waiting, could: Sequence[Capacity], one: Capacity, *, promised: bool) -> str:
    """Return the code that says why a job gets this runner, of those that could hold it."""
    if promised:
        return "room-was-made"
    if len(could) == 1:
        return "asked-for" if job.pin else "only-choice"
    if job.near and job.near.get(one.name) == max(job.near.values()):
        return "has-most-of-it"
    return "fullest-fit" if job.ask.gpus else "least-busy"


def held(by: str, run: str) -> Reason:
    return Reason(ReasonCode.HELD, f"held by {by}; to let it start: dstack release {run}")


def restored(unasked: Sequence[str]) -> Reason:
    """An older state was restored, and the job may be on one of these runners."""
    names = ", ".join(unasked)
    text = (
        f"an older state was restored, and {names} may already have the job but has not answered since;"
        f" if it never will: dstack runners remove --force {unasked[0]}"
    )
    return Reason(ReasonCode.RESTORED, text)


def dependencies_pending(workflows: Sequence[str]) -> Reason:
    return Reason(ReasonCode.WAITING_FOR_DEPENDENCY, f"waiting for {', '.join(workflows)}")


def dependency_ended(workflow: str, status: Status) -> Reason:
    return Reason(ReasonCode.DEPENDENCY_FAILED, f"the dependency {workflow} {ENDED[status]}")


def same_job(run: str, status: Status) -> Reason:
    """Another run has the same job, whose result will be shared."""
    return Reason(ReasonCode.WAITING_FOR_SAME_JOB, f"waiting for {run}, where the same job is {status.value}")


def withdrawn(timeout: float, waited_for: Reason | None) -> Reason:
    waited = f"withdrawn after {span_words(timeout)} in the queue"
    return Reason(ReasonCode.WITHDRAWN, f"{waited}: {waited_for.text}" if waited_for else waited)


def hopeless(waits_for: Reason) -> Reason:
    """No runner that it may use lets dstack in."""
    return Reason(waits_for.code, f"no runner can take it: {waits_for.text}")


def after(attempt: Reason | None, waits_for: Reason) -> Reason:
    """It waits once more, because an attempt ended like this."""
    return Reason(waits_for.code, f"{attempt.text}; {waits_for.text}") if attempt else waits_for


def not_ready(state: str, why: str | None) -> Reason:
    """Why a runner takes no jobs in one of the TROUBLES, as all reasons of a runner in words that follow "NAME is"."""
    return Reason(TROUBLES[state], f"{state}: {why}")


def nobody(pin: str | None, runners: tuple[str, ...]) -> Reason:
    if not (pin or runners):
        return Reason(ReasonCode.NO_RUNNER_KNOWN, "no runner has been added yet")
    if pin and runners:
        text = f"no runner that the workflow allows ({', '.join(runners)}) has the name or label '{pin}'"
    else:
        text = f"no runner has the name or label {' or '.join(map(repr, [pin] if pin else runners))}"
    return Reason(ReasonCode.NO_MATCHING_RUNNER, text)


def no_mount(sources: tuple[str, ...], runners: Sequence[Runner]) -> Reason:
    """No runner allows all of these mounts: what the closest one allows."""
    nearest = max(runners, key=lambda runner: sum(allowed(source, runner.allow_mounts) for source in sources))
    refused = [source for source in sources if not allowed(source, nearest.allow_mounts)]
    what = f"no runner allows mounting {' and '.join(refused)}"
    if nearest.allow_mounts:
        how = f"the closest is {nearest.name}, which allows {', '.join(nearest.allow_mounts)}"
    else:
        how = "to allow it: dstack runners set NAME --allow-mount DIR"
    return Reason(ReasonCode.MOUNT_NOT_ALLOWED, f"{what}; {how}")


def too_much(ask: Ask, machines: Sequence[Capacity]) -> Reason:
    """No runner could hold it, even when empty: what the closest one has."""
    most = min(machines, key=lambda one: (short(ask, one), -len(one.gpus), -one.cpus, -one.machine.memory))
    has, facts = most.count(ask), most.machine.runner.facts
    text = f"it needs {ask.words}; the closest runner is {most.name} with "
    if has < ask.gpus and (ask.gpu_name or ask.gpu_memory or ask.gpu_vendor or (most.gpus and not has)):
        text = f"it needs {ask.gpu_words}; the closest runner is {most.name} with {gpus(most)}"
    elif has < ask.gpus:
        text = f"it needs {ask.gpu_words}; no runner has more than {has} ({most.name})"
    elif most.cpus < ask.cpu:
        text += f"{most.cpus} CPUs"
    elif most.machine.memory < ask.memory:
        text += memory_words(facts.memory if facts else 0)
    elif most.disk_size < ask.disk:
        text += f"a disk of {size_words(facts.disk_total if facts else 0)}"
    else:
        text = f"{most.name} only takes jobs that request CPUs, memory or GPUs"
    return Reason(ReasonCode.NEEDS_MORE_THAN_ANY_RUNNER_HAS, text)


def short(ask: Ask, one: Capacity) -> tuple[float, ...]:
    """How much an empty runner lacks to hold it."""
    gpus = max(0, ask.gpus - one.count(ask))
    sizes = max(0.0, ask.memory - one.machine.memory), max(0.0, ask.disk - one.disk_size)
    return gpus, max(0.0, ask.cpu - one.cpus), *sizes


def gpus(one: Capacity) -> str:
    """`2x A100 of 40 GB`."""
    kinds = [f"{gpu.name or 'GPU'}" + (f" of {memory_words(gpu.memory)}" if gpu.memory else "") for gpu in one.gpus]
    return ", ".join(f"{kinds.count(kind)}x {kind}" for kind in dict.fromkeys(kinds)) or "no GPU"


def limit(ask: Ask, user: str, has: int, most: int) -> Reason:
    text = f"needs {ask.gpu_words}; {user} already has {has} of the {most} GPUs allowed per user"
    return Reason(ReasonCode.USER_GPU_LIMIT, text)


def over_limit(ask: Ask, most: int) -> Reason:
    return Reason(ReasonCode.USER_GPU_LIMIT, f"it needs {ask.gpu_words}; the limit per user is {most}")


def blocked(ask: Ask, nearest: Sequence[Capacity], count: int, now: float) -> Reason:
    """What is in the way on the nearest of the `count` runners that could hold it. The code is that of the nearest."""
    obstacles = [obstacle(ask, one, now) for one in nearest[:SHOWN]]
    texts = [each.text for each in obstacles]
    if count > SHOWN:
        others = count - SHOWN
        texts.append(f"{others} other {'runner' if others == 1 else 'runners'} can't take it now either")
    needs = f"needs {ask.words}; " if ask.words else ""
    return Reason(obstacles[0].code, needs + "; ".join(texts))


def obstacle(ask: Ask, one: Capacity, now: float) -> Reason:
    if one.machine.trouble:
        return Reason(one.machine.trouble.code, f"{one.name} is {one.machine.trouble.text}")
    if one.reserved and one.room(ask):
        first = one.reserved[0]
        text = f"{one.name} keeps its free share for {whose(first.run, first.user)}, which is ahead in the queue"
        return Reason(ReasonCode.RESERVED_FOR_OTHER_JOB, text)
    if ask.gpus and len(one.matching(ask)) < ask.gpus:
        return gpu_obstacle(ask, one, now)
    if ask.cpu and one.cpu < ask.cpu:
        free = f"{max(one.cpu, 0):g} of {one.cpus} CPUs free"
        return busy(f"{one.name} has {free}{holders(one, 'cpu', '{:g}'.format, now)}")
    if ask.memory and one.memory < ask.memory:
        free = f"{memory_words(max(one.memory, 0))} of memory free"
        return busy(f"{one.name} has {free}{holders(one, 'memory', memory_words, now)}")
    if one.disk < ask.disk:
        return Reason(ReasonCode.NOT_ENOUGH_DISK, f"{one.name} has {size_words(max(one.disk, 0))} of disk free")
    return busy(f"{one.name} already runs {sum(lease.ask.shares for lease in one.leases)} jobs, its limit")


def busy(text: str) -> Reason:
    return Reason(ReasonCode.RUNNER_BUSY, text)


def gpu_obstacle(ask: Ask, one: Capacity, now: float) -> Reason:
    """How many GPUs are free, and who has the others."""
    if one.machine.gpu_trouble:
        return Reason(one.machine.gpu_trouble.code, f"{one.name}: {one.machine.gpu_trouble.text}")
    wanted = [gpu.index for gpu in one.gpus if ask.takes(gpu)]
    kind = "GPUs" if len(wanted) == len(one.gpus) else "matching GPUs"
    parts = [f"{one.name} has {len(one.matching(ask))} of {len(wanted)} {kind} free"]
    held = [(lease, len(set(lease.gpus) & set(wanted))) for lease in one.leases if set(lease.gpus) & set(wanted)]
    parts += [holds(lease, f"{count}", now) for lease, count in held[:SHOWN]]
    if len(held) > SHOWN:
        others = len(held) - SHOWN
        parts.append(f"{others} other {'job holds' if others == 1 else 'jobs hold'} the rest")
    leased = {index for lease in one.leases for index in lease.gpus}
    outside = [index for index in wanted if index in one.machine.foreign and index not in leased]
    parts += [f"GPU {index} is used outside dstack {one.machine.foreign[index]}" for index in outside]
    return busy(", ".join(parts))


def holders(one: Capacity, what: str, words: Callable[[float], str], now: float) -> str:
    """Who holds most of the CPUs or the memory, how many others hold some, and what is used outside dstack."""
    used, held = getattr(one.machine.load, what), [lease for lease in one.leases if getattr(lease.ask, what)]
    outside = f", {words(used)} are used outside dstack" if used else ""
    if not held:
        return outside
    most = max(held, key=lambda lease: float(getattr(lease.ask, what)))
    others = f", {len(held) - 1} other {'job holds' if len(held) == 2 else 'jobs hold'} some" if len(held) > 1 else ""
    return f", {holds(most, words(getattr(most.ask, what)), now)}{others}{outside}"


def holds(lease: Lease, amount: str, now: float) -> str:
    """`ann's brave-otter-7 holds 2 (started 2 h ago)`."""
    ending = ", ending now" if lease.ending else ""
    return f"{whose(lease.run, lease.user)} holds {amount} (started {ago_words(now - lease.since)}{ending})"


def whose(run: str, user: str) -> str:
    return f"{user}'s {run}" if user else run
