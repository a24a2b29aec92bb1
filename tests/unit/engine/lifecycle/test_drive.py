"""A job ends as it should whatever is killed, and its commands run at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.engine.lifecycle import drive, watch
from dstack.errors import CommandError, HostAuthError, HostUnreachableError
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.project.workflow import Retry
from tests.unit.engine.lifecycle.machine import LOG, Killed, Machine, World


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(watch, "ASK_AGAIN", 0.0)


class Once:
    """Raises an error at the n-th moment, and counts the moments."""

    def __init__(self, moment: int, error: type[BaseException], *arguments: Any) -> None:
        self.moment = moment
        self.error = error
        self.arguments = arguments
        self.moments = 0

    def __call__(self, when: str) -> None:
        self.moments += 1
        if self.moments == self.moment:
            raise self.error(*self.arguments)


def lived(world: World) -> None:
    """Drive the job to its end, with a new server after each death."""
    while not world.job.finished and world.job.status is not Status.QUEUED:
        try:
            asyncio.run(world.drive().run())
        except Killed:
            continue


def worlds(
    tmp_path: Path, error: type[BaseException], *arguments: Any, trouble: Callable[[str], None] = lambda when: None
) -> Iterator[tuple[Machine, World]]:
    """One world for every moment in a job's life at which something may happen, besides this trouble."""
    moment, moments = 1, 1
    while moment <= moments:
        once = Once(moment, error, *arguments)

        def both(when: str, once: Once = once) -> None:
            once(when)
            trouble(when)

        machine = Machine(trouble=both)
        world = World(tmp_path / str(moment), machine)
        real = world.store.jobs.change

        def change(job: str, once: Once = once, real: Any = real, **changes: Any) -> Any:
            once("before the change")
            changed = real(job, **changes)
            once("after the change")
            return changed

        if error is Killed:
            world.store.jobs.change = change  # type: ignore[method-assign]
        lived(world)
        yield machine, world
        world.store.close()
        moments = max(moments, once.moments)
        moment += 1
    assert moments > 4


def test_a_job_that_started_although_its_launch_failed_records_when(tmp_path: Path) -> None:
    def trouble(when: str) -> None:
        if when == "after launching the job":
            raise CommandError("launching the job", 1, "")

    world = World(tmp_path, Machine(trouble=trouble))

    lived(world)

    assert world.job.status is Status.DONE
    assert world.job.started_at is not None


@pytest.mark.parametrize(("code", "status"), [(0, Status.DONE), (17, Status.FAILED)])
def test_a_job_ends_with_its_code_and_its_whole_log(tmp_path: Path, code: int, status: Status) -> None:
    world = World(tmp_path, Machine(exit_code=code))

    lived(world)

    assert (world.job.status, world.job.exit_code) == (status, code)
    assert world.log == LOG
    assert world.job.launch is not None
    assert world.job.image_digest == "sha256:1"


def test_killed_between_any_two_steps_the_job_ends_all_the_same(tmp_path: Path) -> None:
    for machine, world in worlds(tmp_path, Killed):
        assert (world.job.status, world.job.exit_code) == (Status.DONE, 0)
        assert machine.begun == 1
        assert world.log == LOG


def test_with_a_connection_that_breaks_at_any_moment_too(tmp_path: Path) -> None:
    for machine, world in worlds(tmp_path, HostUnreachableError, "the connection broke"):
        assert (world.job.status, world.job.exit_code) == (Status.DONE, 0)
        assert machine.begun == 1
        assert world.log == LOG
        assert world.job.unreachable_since is None


def test_a_host_that_could_not_be_asked_gives_the_job_back(tmp_path: Path) -> None:
    world = World(tmp_path, Machine(trouble=Once(1, HostAuthError, "no key fits")))

    lived(world)

    assert world.job.status is Status.QUEUED
    assert (world.job.runner, world.job.launching) == (None, False)
    assert world.job.reason == Reason(ReasonCode.RUNNER_UNUSABLE, "box: no key fits")


def test_what_docker_refuses_fails_once_the_job_is_fenced(tmp_path: Path) -> None:
    machine = Machine(trouble=Once(1, CommandError, "launching the job", 125, "no such device"))
    world = World(tmp_path, machine)

    lived(world)

    assert (world.job.status, world.job.exit_code) == (Status.FAILED, 125)
    assert "no such device" in (world.job.reason.text if world.job.reason else "")
    assert (machine.claim, machine.begun) == ("fenced", 0)


def refuse(when: str) -> None:
    if when == "before launching the job":
        raise CommandError("launching the job", 125, "no such device")


def test_it_fails_for_the_same_reason_if_the_server_dies_meanwhile(tmp_path: Path) -> None:
    for machine, world in worlds(tmp_path, Killed, trouble=refuse):
        assert (world.job.status, world.job.exit_code) == (Status.FAILED, 125)
        assert "no such device" in (world.job.reason.text if world.job.reason else "")
        assert (machine.claim, machine.begun) == ("fenced", 0)


def test_it_fails_for_the_same_reason_if_the_connection_breaks_meanwhile(tmp_path: Path) -> None:
    for machine, world in worlds(tmp_path, HostUnreachableError, "the connection broke", trouble=refuse):
        assert (world.job.status, machine.begun) == (Status.FAILED, 0)
        assert "no such device" in (world.job.reason.text if world.job.reason else "")


def test_a_failed_launch_does_not_end_what_runs(tmp_path: Path) -> None:
    machine = Machine()
    machine.trouble = Once(2, CommandError, "launching the job", 75, "another launch has been running for a minute")
    machine.running = True
    world = World(tmp_path, machine)
    end_at_the_second_look = iter([None, lambda: setattr(machine, "running", False)])

    def trouble(when: str, once: Callable[[str], None] = machine.trouble) -> None:
        once(when)
        if when == "before observing the job" and (act := next(end_at_the_second_look, None)):
            act()

    machine.trouble = trouble

    lived(world)

    assert (world.job.status, machine.begun, machine.asked) == (Status.DONE, 1, False)


@pytest.mark.parametrize(("code", "status"), [(0, Status.DONE), (3, Status.FAILED)])
def test_a_job_that_ended_before_its_stop_arrived_keeps_its_end(tmp_path: Path, code: int, status: Status) -> None:
    machine = Machine(exit_code=code)
    machine.claim = "claimed"
    world = World(tmp_path, machine)
    definition = replace(world.job.definition, retry=Retry(attempts=2, on=("error",)))
    world.store.jobs.change("abc", launching=True, status=Status.RUNNING, stop="stop", definition=definition)

    lived(world)

    assert (world.job.status, world.job.exit_code) == (status, code)
    assert world.job.history == ()


def test_a_refusal_after_the_commands_began_is_not_believed(tmp_path: Path) -> None:
    machine = Machine(trouble=Once(2, CommandError, "launching the job", 125, "the client crashed"))
    world = World(tmp_path, machine)

    lived(world)

    assert (world.job.status, machine.begun) == (Status.DONE, 1)


def test_a_job_that_has_not_begun_is_stopped_for_good(tmp_path: Path) -> None:
    machine = Machine()
    world = World(tmp_path, machine)
    world.store.jobs.change("abc", launching=True, stop="stop")

    lived(world)

    assert (world.job.status, world.job.exit_code) == (Status.STOPPED, 143)
    assert (machine.claim, machine.begun) == ("fenced", 0)


@pytest.mark.parametrize("wish", ["stop", "abort"])
def test_a_running_job_is_stopped_and_its_log_kept(tmp_path: Path, wish: str) -> None:
    machine = Machine(exit_code=143)
    machine.claim = "claimed"
    world = World(tmp_path, machine)
    world.store.jobs.change("abc", launching=True, status=Status.RUNNING, stop=wish)

    lived(world)

    assert (world.job.status, world.job.exit_code) == (Status.STOPPED, 143)
    assert world.log == LOG


def test_an_aborted_job_had_no_grace_period(tmp_path: Path) -> None:
    machine = Machine(exit_code=143)
    machine.claim = "claimed"
    world = World(tmp_path, machine)
    world.store.jobs.change("abc", launching=True, status=Status.RUNNING, stop="abort")

    lived(world)

    reasons = {event.data.get("reason") for event in world.store.events.select()} - {None}
    assert reasons == {"aborted; what it stored is being removed", "aborted; nothing was stored"}
