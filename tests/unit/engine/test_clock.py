"""How long a run has waited does not depend on the time of day."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.engine.engine import Engine
from dstack.engine.fleet.condition import Condition
from dstack.model.job.job import Origin
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.plumbing import clock
from dstack.plumbing.clock import age, moment
from tests.unit.engine.lifecycle.machine import Machine, World

HOURS = [-7200, 0, 7200]


def queued(tmp_path: Path, *, waited: float, shift: float, timeout: float = 60.0) -> World:
    """A run that was submitted `waited` seconds ago, when the clock was wrong by `shift` seconds."""
    world = World(tmp_path, Machine())
    now = moment()
    submitted = rfc3339(time.time() - waited + shift)
    run = replace(
        world.store.runs.require("run"),
        submitted_at=submitted,
        timeout=timeout,
        accepted=Origin(now.boot, "", (now.uptime or 0.0) - waited),
    )
    job = replace(world.job, status=Status.QUEUED, runner=None, submitted_at=submitted)
    world.store.database.execute("DELETE FROM runs")
    world.store.jobs.remove("abc")
    world.store.runs.add(run)
    world.store.jobs.add(job)
    return world


@pytest.mark.parametrize("shift", HOURS)
def test_a_run_is_withdrawn_after_its_timeout_and_not_before(tmp_path: Path, shift: float) -> None:
    for waited, ends in ((10.0, False), (70.0, True)):
        world = queued(tmp_path / str(waited), waited=waited, shift=shift)
        engine = Engine(world.context)

        engine.scheduler.run()

        assert (world.job.reason_code is ReasonCode.WITHDRAWN) == ends
        if not ends:
            assert engine.scheduler.again_at is not None
            assert 40 < engine.scheduler.again_at - time.monotonic() <= 50
        world.store.close()


@pytest.mark.parametrize("shift", HOURS)
def test_runners_that_let_nobody_in_fail_no_job_early(tmp_path: Path, shift: float) -> None:
    for waited, ends in ((5.0, False), (30.0, True)):
        world = queued(tmp_path / str(waited), waited=waited, shift=shift, timeout=1e6)
        fleet = world.context.fleet
        fleet.conditions["box"] = Condition("unusable", "it lets nobody in", failing_since=time.monotonic() - 29)
        engine = Engine(world.context)

        engine.scheduler.run()

        assert world.job.finished == ends
        world.store.close()


def test_after_a_reboot_the_time_of_day_has_to_do(tmp_path: Path) -> None:
    world = queued(tmp_path, waited=70.0, shift=0.0)
    run = world.store.runs.require("run")

    rebooted = replace(run, accepted=Origin("another boot", "", 1e9))

    assert age(rebooted) == pytest.approx(70, abs=30)
    assert age(replace(run, accepted=None, submitted_at=rfc3339(time.time() + 7200))) == 0.0
    world.store.close()


def test_without_a_boot_id_moments_of_one_process_can_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "BOOT_ID", tmp_path / "none")
    clock.boot.cache_clear()
    try:
        passed = moment().until(moment())
    finally:
        clock.boot.cache_clear()

    assert passed is not None
    assert passed >= 0
