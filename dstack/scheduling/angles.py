"""Looks at a job that waits from every runner's side: what is in the way there, and what would change that. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from dstack.model.api.why import Advice
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.resources import Ask
from dstack.scheduling import reasons
from dstack.scheduling.capacity import Capacity
from dstack.scheduling.matching import allows, opens
from dstack.scheduling.schedule import Pass
from dstack.scheduling.types import Lease, Machine, Waiting

COMMANDS = {
    ReasonCode.RUNNER_DRAINED: ("{name} accepts no new jobs", "dstack runners resume {name}"),
    ReasonCode.RUNNER_UNREACHABLE: ("{name} does not answer", "dstack runners check {name}"),
    ReasonCode.RUNNER_UNUSABLE: ("{name} can't run jobs", "dstack runners check {name}"),
    ReasonCode.MOUNT_NOT_ALLOWED: (
        "{name} does not allow its mounts",
        "dstack runners set {name} --allow-mount DIR",
    ),
}
"""What helps on one runner, by what is in the way there."""


@dataclass(frozen=True)
class Angle:
    """One runner as a job sees it. `reason` is None if the job could start there."""

    one: Capacity
    reason: Reason | None


def left_over(
    waiting: Sequence[Waiting], machines: Sequence[Machine], leases: Sequence[Lease], now: float
) -> list[Capacity]:
    """Return what each runner has left after a pass over all jobs that wait."""
    planned = Pass(waiting, machines, leases, now, None)
    planned.run()
    return planned.all


def angles(job: Waiting, runners: Sequence[Capacity], now: float) -> list[Angle]:
    """Return what is in the way of a job that waits on each of the runners."""
    return [Angle(one, in_the_way(job, one, now)) for one in runners]


def in_the_way(job: Waiting, one: Capacity, now: float) -> Reason | None:
    runner = one.machine.runner
    if not allows(job.pin, job.runners, runner):
        names = [job.pin] if job.pin else job.runners
        text = f"{one.name} does not have the name or label {' or '.join(map(repr, names))}"
        return Reason(ReasonCode.NO_MATCHING_RUNNER, text)
    if not opens(job.eligibility, runner):
        return reasons.no_mount(job.mounts, [runner])
    if runner.facts is not None and not one.could_hold(job.ask):
        return reasons.too_much(job.ask, [one])
    return None if one.fits(job.ask) else reasons.obstacle(job.ask, one, now)


def advice(job: Waiting, found: Sequence[Angle]) -> Iterator[Advice]:
    """Yield what would let the job start, the least effort first."""
    for angle in found:
        if angle.reason is not None and angle.reason.code is ReasonCode.NO_MATCHING_RUNNER and angle.one.fits(job.ask):
            wanted = job.pin or job.runners[0]
            command = f"dstack runners set {angle.one.name} --label {wanted}"
            yield Advice(f"{angle.one.name} has room; with the label {wanted} it could take the job now", command)
    yield from less(job, found)
    for angle in found:
        if angle.reason is not None and angle.reason.code in (
            ReasonCode.RUNNER_BUSY,
            ReasonCode.RESERVED_FOR_OTHER_JOB,
        ):
            yield from ends(angle)
        elif angle.reason is not None and angle.reason.code in COMMANDS:
            text, command = COMMANDS[angle.reason.code]
            yield Advice(text.format(name=angle.one.name), command.format(name=angle.one.name))
    if not any(angle.reason is None or angle.reason.code not in HOPELESS for angle in found):
        yield Advice("no runner can ever take it: ask for less, or add a machine", "dstack runners add HOST")


HOPELESS = (ReasonCode.NO_MATCHING_RUNNER, ReasonCode.MOUNT_NOT_ALLOWED, ReasonCode.NEEDS_MORE_THAN_ANY_RUNNER_HAS)


def less(job: Waiting, found: Sequence[Angle]) -> Iterator[Advice]:
    """With how many GPUs it could start at once."""
    open_to = [angle.one for angle in found if angle.one.works and opens(job.eligibility, angle.one.machine.runner)]
    for count in range(job.ask.gpus - 1, 0, -1):
        fits = next((one for one in open_to if takes(one, job, replace(job.ask, gpus=count))), None)
        if fits is not None:
            yield Advice(f"with {count} instead of {job.ask.gpus} GPUs it could start now on {fits.name}", None)
            return


def takes(one: Capacity, job: Waiting, ask: Ask) -> bool:
    """Whether the job could start here if it asked for this. What is reserved for the job itself is not in its way."""
    others = any(each.id != job.id for each in one.reserved)
    return one.room(ask) and (not others or one.spares(ask))


def ends(angle: Angle) -> Iterator[Advice]:
    """Whose end makes room: that of the job that has been there for longest."""
    if angle.one.leases:
        oldest = min(angle.one.leases, key=lambda lease: lease.since)
        yield Advice(f"it can start on {angle.one.name} when {reasons.whose(oldest.run, oldest.user)} ends")
