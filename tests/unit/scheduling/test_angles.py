"""A job that waits, as each runner sees it, and what would let it start."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.model.job.reasons import ReasonCode
from dstack.scheduling.angles import advice, angles, left_over
from dstack.scheduling.reasons import choice, not_ready
from dstack.scheduling.schedule import schedule
from dstack.scheduling.types import Lease, Machine, Waiting
from tests.unit.scheduling.test_schedule import HOUR, lease, machine, wants


def seen(job: Waiting, machines: Sequence[Machine], *leases: Lease) -> dict[str, ReasonCode | None]:
    found = angles(job, left_over([job], machines, leases, 2 * HOUR), 2 * HOUR)
    return {angle.one.name: angle.reason.code if angle.reason else None for angle in found}


def offers(job: Waiting, machines: Sequence[Machine], *leases: Lease) -> list[tuple[str, str | None]]:
    found = angles(job, left_over([job], machines, leases, 2 * HOUR), 2 * HOUR)
    return [(each.text, each.command) for each in advice(job, found)]


def test_every_runner_says_what_is_in_the_way() -> None:
    machines = [
        machine("busy", 4, labels=("lab",)),
        machine("small", 1, labels=("lab",)),
        machine("other", 4),
        machine("off", 4, labels=("lab",), trouble=not_ready("drained", "repairs")),
    ]

    assert seen(wants("a", 2, pin="lab"), machines, lease("busy", 0, 1, 2)) == {
        "busy": ReasonCode.RUNNER_BUSY,
        "small": ReasonCode.NEEDS_MORE_THAN_ANY_RUNNER_HAS,
        "other": ReasonCode.NO_MATCHING_RUNNER,
        "off": ReasonCode.RUNNER_DRAINED,
    }


def test_the_advice_is_what_would_let_it_start() -> None:
    machines = [
        machine("busy", 4, labels=("lab",)),
        machine("other", 4),
        machine("off", 4, labels=("lab",), trouble=not_ready("drained", "repairs")),
    ]

    assert offers(wants("a", 2, pin="lab"), machines, lease("busy", 0, 1, 2)) == [
        ("other has room; with the label lab it could take the job now", "dstack runners set other --label lab"),
        ("with 1 instead of 2 GPUs it could start now on busy", None),
        ("it can start on busy when ann's brave-otter-7 ends", None),
        ("off accepts no new jobs", "dstack runners resume off"),
    ]
    assert offers(wants("a", 9), machines)[-1] == (
        "no runner can ever take it: ask for less, or add a machine",
        "dstack runners add HOST",
    )


def test_a_mount_that_is_not_allowed() -> None:
    job = wants("a", mounts=("/data",))

    assert seen(job, [machine("lab")]) == {"lab": ReasonCode.MOUNT_NOT_ALLOWED}
    assert offers(job, [machine("lab")])[0][1] == "dstack runners set lab --allow-mount DIR"


def test_a_placed_job_says_why_there() -> None:
    one, two = machine("one", 2), machine("two", 2)

    def chosen(job: Waiting, *machines: Machine) -> str:
        return schedule([job], machines).choices["a"]

    assert chosen(wants("a"), one) == "only-choice"
    assert chosen(wants("a", pin="one"), one, two) == "asked-for"
    assert chosen(wants("a"), one, two) == "least-busy"
    assert chosen(wants("a", 1), one, two) == "fullest-fit"
    assert chosen(wants("a", 1, near={"two": 3}), one, two) == "has-most-of-it"
    assert choice(wants("a"), (), one, promised=True) == "room-was-made"  # type: ignore[arg-type]
