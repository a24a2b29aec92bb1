"""What a job says while the connection to its runner is silent, whatever it is doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.silence import Silence
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import steady, time_of_day
from tests.unit.engine.lifecycle.machine import Machine, World

PULLING = Reason(ReasonCode.PULLING_IMAGE, "pulling busybox on box")
STEPS: dict[Status, list[Status]] = {
    Status.PREPARING: [],
    Status.RUNNING: [Status.RUNNING],
    Status.UPLOADING: [Status.RUNNING, Status.UPLOADING],
}


@pytest.mark.parametrize("status", STEPS)
@pytest.mark.parametrize("before", [None, PULLING])
def test_silence_is_told_with_the_last_answer_and_taken_back(
    tmp_path: Path, status: Status, before: Reason | None
) -> None:
    # Given a job on a runner that answered a while ago
    world = World(tmp_path, Machine())
    for step in STEPS[status]:
        world.store.jobs.change("abc", status=step)
    world.store.jobs.change("abc", reason=before)
    silence, host = Silence(JobOnRunner(world.context, "abc")), world.machine.host
    host.answered = steady() - 60

    # When the connection is silent
    host.silent = True
    silence.glance()

    # Then the job says since when
    since = rfc3339(time_of_day(host.answered))
    assert world.job.unreachable_since == since
    assert world.job.reason == Reason(ReasonCode.RUNNER_UNREACHABLE, f"runner 'box' has not answered since {since}")

    # And it says what it said before once it is heard
    host.silent = False
    silence.glance()
    assert (world.job.reason, world.job.unreachable_since) == (before, None)


def test_what_others_say_about_it_stays(tmp_path: Path) -> None:
    world = World(tmp_path, Machine())
    silence, host = Silence(JobOnRunner(world.context, "abc")), world.machine.host
    host.answered, host.silent = steady() - 60, True
    silence.glance()
    other = Reason(ReasonCode.PULLING_IMAGE, "pulling")
    world.store.jobs.change("abc", reason=other, unreachable_since=None)

    host.silent = False
    silence.glance()

    assert world.job.reason == other


def test_a_job_whose_connection_has_broken_keeps_the_words_about_that(tmp_path: Path) -> None:
    world = World(tmp_path, Machine())
    silence, host = Silence(JobOnRunner(world.context, "abc")), world.machine.host
    broken = Reason(ReasonCode.RUNNER_UNREACHABLE, "runner 'box' has not answered since then: it broke")
    world.store.jobs.change("abc", reason=broken, unreachable_since="then")
    host.answered, host.silent = steady() - 60, True

    silence.glance()

    assert (world.job.reason, world.job.unreachable_since) == (broken, "then")
