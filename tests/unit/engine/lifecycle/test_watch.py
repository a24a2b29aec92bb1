"""How long a job has run by its machine's clock, and what keeps it from going on."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.engine.lifecycle import attend, drive, watch
from dstack.model.job.job import Origin
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import steady, time_of_day
from tests.unit.engine.lifecycle.machine import Machine, World

HOUR = 3600.0
PAUSED = json.dumps({"Status": "paused"})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(watch, "ASK_AGAIN", 0.0)
    monkeypatch.setattr(attend, "LOOK", 0.01)


def running(folder: Path, started_at: float, **seen: str) -> World:
    """A job with a limit of an hour, launched 100 seconds after its machine's boot, and what its machine says now."""
    machine = Machine(exit_code=143)
    machine.claim, machine.running, machine.seen = "claimed", True, seen
    world = World(folder, machine)
    definition = replace(world.job.definition, max_duration="1h")
    launch = Origin("b1", "7:100", 100.0)
    changes = {"status": Status.RUNNING, "launching": True, "started_at": rfc3339(started_at), "launch": launch}
    world.store.jobs.change("abc", definition=definition, **changes)
    return world


def driven(world: World, seconds: float) -> None:
    """Drive the job for a while, or to its end."""

    async def drive_it() -> None:
        driving = asyncio.create_task(world.drive().run())
        await asyncio.wait({driving}, timeout=seconds)
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)

    asyncio.run(drive_it())


def test_a_servers_clock_that_jumps_ahead_kills_nothing(tmp_path: Path) -> None:
    world = running(tmp_path, time.time() - 2 * HOUR, uptime="114.0")

    driven(world, 0.3)

    assert (world.job.status, world.job.expired) == (Status.RUNNING, False)


def test_a_servers_clock_that_jumps_back_spares_nothing(tmp_path: Path) -> None:
    world = running(tmp_path, time.time() + 2 * HOUR, uptime="3701.0")

    driven(world, 20)

    assert (world.job.status, world.job.exit_code) == (Status.FAILED, 124)


def test_a_job_of_an_older_version_has_only_the_time_of_day(tmp_path: Path) -> None:
    world = running(tmp_path, time.time() - 2 * HOUR, uptime="114.0")
    world.store.jobs.change("abc", launch=Origin("b1", "7:100"))

    driven(world, 20)

    assert world.job.exit_code == 124


@pytest.mark.parametrize(
    ("seen", "code", "words"),
    [
        ({"container": PAUSED}, ReasonCode.CONTAINER_PAUSED, "run on box: docker unpause dstack-abc"),
        ({"disk_free": "12"}, ReasonCode.DISK_FULL, "dstack runners check box"),
        (
            {"container": "silent", "silence": "it has been asked for 10 seconds"},
            ReasonCode.RUNNER_UNREACHABLE,
            "Docker on box has not answered since",
        ),
    ],
)
def test_a_condition_is_told_with_since_when_and_goes(
    tmp_path: Path, seen: dict[str, str], code: ReasonCode, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_AGAIN", 60.0)  # only the one who attends looks
    world = running(tmp_path, time.time(), uptime="101.0")
    looks = 0
    told = []

    def trouble(when: str) -> None:
        nonlocal looks
        looks += when == "before observing the job"
        if looks > 1:
            told.append(world.job.reason)
        world.machine.seen = {"uptime": "101.0", **(seen if 2 < looks < 5 else {})}

    world.machine.trouble = trouble

    driven(world, 1)

    reasons = {reason for reason in told if reason}
    assert len(reasons) == 1, "it keeps its first words"
    assert (told[0], told[-1], world.job.reason) == (None, None, None)
    (reason,) = reasons
    assert reason.code is code
    assert words in reason.text
    assert rfc3339(time.time())[:10] in reason.text


@pytest.mark.parametrize(
    ("heard", "since"),
    [(None, -7), (-9, -7), (-2, -2), (1000, -7)],
    ids=["needs no connection", "earlier", "later, as an answer to a keepalive", "still, while commands hang"],
)
def test_a_runner_that_falls_silent_is_told_before_its_connection_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: float | None, since: float
) -> None:
    monkeypatch.setattr(attend, "LATE", 0.05)
    world = running(tmp_path, time.time(), uptime="101.0")
    waiting = asyncio.Event()

    async def run(command: object, timeout: float | None = None) -> None:
        await waiting.wait()

    async def silent() -> None:
        at = world.drive()
        now = steady()
        at.answered, world.machine.host.answered = now - 7, None if heard is None else now + heard
        monkeypatch.setattr(world.machine.host, "run", run)
        attending = asyncio.create_task(attend.attend(at))
        while world.job.reason is None:
            await asyncio.sleep(0.01)
        assert world.job.unreachable_since == rfc3339(time_of_day(now + since))
        assert world.job.reason.code is ReasonCode.RUNNER_UNREACHABLE
        monkeypatch.undo()
        monkeypatch.setattr(attend, "LOOK", 0.01)
        waiting.set()
        while world.job.reason is not None:
            await asyncio.sleep(0.01)
        assert world.job.unreachable_since is None
        attending.cancel()

    asyncio.run(asyncio.wait_for(silent(), 20))
