"""What is asked before anything old is launched, and what follows from the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.commands.command import Result
from dstack.engine.engine import Engine
from dstack.engine.fleet.condition import Condition
from dstack.engine.lifecycle import drive, watch
from dstack.errors import HostUnreachableError, StateBusyError
from dstack.hosts.recording import Reply
from dstack.model.api import wire
from dstack.model.job.attempts import again
from dstack.model.job.job import Job, LaunchRecord, Origin
from dstack.model.job.manifest import Manifest
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from dstack.model.project.workflow import RegistryAuth, Retry
from dstack.model.runner.runner import Facts
from tests.unit.engine.lifecycle.machine import Machine, World

ASKING = "asking what is on the machine"


class Told(Machine):
    """A machine that answers this when it is asked what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.stock: Reply = ""

    def reply(self, command: Any) -> Reply:
        return self.stock if command.name == ASKING else super().reply(command)


@pytest.fixture
def machine() -> Told:
    return Told()


@pytest.fixture
def world(tmp_path: Path, machine: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A server with one queued job, and one runner that was ready a moment ago."""
    for room in (drive, watch):
        for name in ("LONGEST_PAUSE", "LOOK_AGAIN"):
            monkeypatch.setattr(room, name, 0.01, raising=False)
    world = World(tmp_path, machine)
    queued = replace(world.job, status=Status.QUEUED, runner=None)
    world.store.jobs.remove("abc")
    world.store.jobs.add(queued)
    world.context.fleet.conditions["box"] = Condition("ready")
    yield world
    world.store.close()


def restored(world: World) -> None:
    """The state was put back after the job was submitted."""
    world.store.settings.set("restored_jobs", str(world.store.jobs.number("abc")))
    world.store.settings.set("unasked", "box")


def pass_over(world: World, *, ask: bool = False) -> Job:
    """Start the engine, pass over the queue once, and let what was placed end."""

    async def lived() -> None:
        engine = Engine(world.context)
        if ask:
            await engine.reconciler.greet("box")
        engine.scheduler.run()
        tasks = list(engine.drives.values())
        if tasks:
            await asyncio.wait(tasks, timeout=20)
        await engine.close()

    asyncio.run(lived())
    return world.job


def test_after_a_restore_a_job_waits_for_the_runners_that_may_have_it(world: World, machine: Told) -> None:
    restored(world)
    world.store.jobs.add(replace(world.job, id="def", submitted_at="2026-06-02T00:00:00Z"))

    job = pass_over(world)

    assert (job.status, job.reason_code) == (Status.QUEUED, ReasonCode.RESTORED)
    assert "dstack runners remove --force box" in (job.reason.text if job.reason else "")
    assert world.store.jobs.require("def").status is Status.DONE, "what was submitted since waits for nobody"


def test_after_the_answer_it_is_launched(world: World, machine: Told) -> None:
    restored(world)

    job = pass_over(world, ask=True)

    assert (job.status, machine.begun) == (Status.DONE, 1)
    assert not world.store.settings.get("unasked")


def test_a_queued_job_whose_result_is_stored_is_not_run_again(world: World, machine: Told) -> None:
    restored(world)
    asyncio.run(world.context.artifacts.current.commit(Manifest("abc", "run", "job", "failed", (), 1, 3)))

    job = pass_over(world, ask=True)

    assert (job.status, job.exit_code, machine.begun) == (Status.FAILED, 3, 0)


def test_a_queued_job_that_left_only_its_log_is_not_run_again(world: World, machine: Told) -> None:
    # Given a job without artifacts, which had begun on a runner that is asked last
    restored(world)
    box = world.store.runners.require("box")
    world.store.runners.add(replace(box, name="other", address=replace(box.address, host="other")))
    world.store.settings.set("unasked", "box other")
    world.store.logs.begin("abc")

    # When one runner says that it has nothing
    job = pass_over(world, ask=True)
    assert (job.status, job.reason_code) == (Status.QUEUED, ReasonCode.RESTORED)

    # Then it is lost once the other one says so, too
    asyncio.run(Engine(world.context).reconciler.greet("other"))
    assert (world.job.status, machine.begun) == (Status.LOST, 0)
    assert "nobody knows how it ended" in (world.job.reason.text if world.job.reason else "")


def test_a_second_attempt_is_launched_though_the_first_one_printed_nothing(world: World, machine: Told) -> None:
    restored(world)
    world.store.jobs.change("abc", attempt=2)
    world.store.logs.begin("abc")  # of its first attempt

    assert (pass_over(world, ask=True).status, machine.begun) == (Status.DONE, 1)


def test_a_job_without_a_log_is_launched(world: World, machine: Told) -> None:
    restored(world)
    world.store.jobs.change("abc", log_start=4)
    world.store.logs.append("abc", b"old\n")  # of its first attempt

    assert (pass_over(world, ask=True).status, machine.begun) == (Status.DONE, 1)


def test_a_launch_under_way_that_had_ended_is_not_repeated(world: World, machine: Told) -> None:
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True)
    asyncio.run(world.context.artifacts.current.commit(Manifest("abc", "run", "job", "done", ())))

    asyncio.run(world.drive().run())

    assert (world.job.status, machine.begun) == (Status.DONE, 0)


@pytest.mark.parametrize("status", [Status.PREPARING, Status.RUNNING])
@pytest.mark.parametrize("known", [True, False], ids=["launching", "not yet launching"])
def test_a_job_that_was_launched_and_removed_since_is_not_run_again(
    world: World, machine: Told, status: Status, known: bool
) -> None:
    # Given a record that was restored, and a job that has been launched, aborted and removed since
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=known)
    if status is Status.RUNNING:
        world.store.jobs.change("abc", status=status, launch=Origin("b1", "7:100"))
    world.store.logs.begin("abc")
    restored(world)
    machine.claim = "gone"

    # When the runner has been asked
    asyncio.run(world.drive().begun())
    asyncio.run(Engine(world.context).reconciler.greet("box"))
    asyncio.run(world.drive().run())

    # Then its commands have not run again
    assert (world.job.status, machine.begun) == (Status.LOST, 0)
    assert "nobody knows how it ended" in (world.job.reason.text if world.job.reason else "")


def test_a_launch_waits_for_the_other_runners_that_may_have_the_job(
    world: World, machine: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a launch under way on one runner, and another one that has not been asked since a restore
    monkeypatch.setattr(drive, "ASKED", 0.01)
    restored(world)
    box = world.store.runners.require("box")
    elsewhere = {"address": replace(box.address, host="other"), "facts": Facts(machine="m2")}
    world.store.runners.add(replace(box, name="other", **elsewhere))
    world.store.settings.set("unasked", "box other")
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True)

    engine_started(world)
    assert (world.job.status, world.job.reason_code, machine.begun) == (Status.PREPARING, ReasonCode.RESTORED, 0)

    # When that one has the job, it is the one that runs
    machine.stock = "attempt=abc claimed no 1780000000\nboot=b1\ndocker=7:100\ncontainer=dstack-abc Up 3 minutes\n"
    asyncio.run(Engine(world.context).reconciler.greet("other"))
    assert (world.job.status, world.job.runner, machine.begun) == (Status.RUNNING, "other", 0)


def test_a_runner_whose_answer_could_not_be_recorded_is_asked_again(
    world: World, machine: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored(world)
    reconciler = Engine(world.context).reconciler
    with monkeypatch.context() as locked:
        locked.setattr(world.store.restoration, "asked", lambda name: (_ for _ in ()).throw(StateBusyError("locked")))
        with pytest.raises(StateBusyError):
            asyncio.run(reconciler.greet("box"))

    asyncio.run(reconciler.greet("box"))

    assert world.store.restoration.unasked == []


def test_a_job_that_was_removed_since_its_upload_began_is_lost(
    world: World, machine: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = replace(world.job.definition, artifacts=("out",))
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True, definition=definition)
    world.store.jobs.change("abc", status=Status.RUNNING, launch=Origin("b1", "7:100"))
    world.store.jobs.change("abc", status=Status.UPLOADING, exit_code=0, final_status=Status.DONE)
    restored(world)
    monkeypatch.setattr(machine, "listing", lambda command: "gone=yes\n")

    asyncio.run(world.drive().run())

    assert (world.job.status, world.job.exit_code) == (Status.LOST, 125)
    assert "nobody knows how it ended" in (world.job.reason.text if world.job.reason else "")


@pytest.mark.parametrize("exit_code", [143, 137])
def test_a_stop_that_the_restored_state_does_not_know_is_one(world: World, machine: Told, exit_code: int) -> None:
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True)
    machine.claim, machine.asked, machine.exit_code = "claimed", True, exit_code

    asyncio.run(world.drive().run())

    assert (world.job.status, world.job.exit_code) == (Status.STOPPED, 143)
    assert "before an older state was restored" in (world.job.reason.text if world.job.reason else "")


def test_a_job_that_runs_there_is_adopted(world: World, machine: Told) -> None:
    machine.stock = "attempt=abc claimed no 1780000000\nboot=b1\ndocker=7:100\ncontainer=dstack-abc Up 3 minutes\n"
    machine.claim = "claimed"

    job = pass_over(world, ask=True)

    assert (job.status, job.runner, machine.begun) == (Status.DONE, "box", 0)
    assert job.started_at == "2026-05-28T20:26:40.000Z"


@pytest.mark.parametrize("stock", [HostUnreachableError("no route"), "silence=Cannot connect\n"])
def test_a_runner_that_does_not_answer_gets_nothing(world: World, machine: Told, stock: Reply) -> None:
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True)
    machine.stock = stock

    engine_started(world)

    assert (world.job.status, world.job.reason_code) == (Status.PREPARING, ReasonCode.RUNNER_UNREACHABLE)
    assert machine.begun == 0


@pytest.mark.parametrize("wrong", ["run", "workflow", "repo", "project", "branch", "id", "bytes"])
def test_a_record_that_could_lead_elsewhere_is_an_orphan(world: World, machine: Told, wrong: str) -> None:
    # Given a job that only the machine knows, whose record was tampered with
    run, job = world.store.runs.require("run"), replace(world.job, id="def")
    if wrong == "run":
        run, job = replace(run, name="../../run"), replace(job, run="../../run")
    elif wrong == "workflow":
        job = replace(job, workflow="a/b")
    elif wrong == "repo":
        run = replace(run, snapshot=replace(run.snapshot, repo="../repo"))
    elif wrong in ("project", "branch"):
        run = replace(run, snapshot=replace(run.snapshot, **{wrong: "../../x"}))
    elif wrong == "id":
        job = replace(job, id="xyz")
    record = wire.encode(LaunchRecord(run=run, job=job)).decode() if wrong != "bytes" else '{"run": 1'
    machine.stock = f"attempt=def claimed no 1780000000\nrecord={record}\n"

    asyncio.run(Engine(world.context).reconciler.greet("box"))

    assert [orphan.name for orphan in world.context.fleet.orphans["box"]] == ["def"]
    assert world.store.jobs.get("def") is None


@pytest.mark.parametrize("deleted", [False, True])
def test_a_job_that_only_the_machine_knows_is_adopted_unless_somebody_deleted_it(
    world: World, machine: Told, deleted: bool
) -> None:
    run, job = replace(world.store.runs.require("run"), name="other"), replace(world.job, id="def", run="other")
    record = wire.encode(LaunchRecord(run=run, job=job)).decode()
    machine.stock = f"attempt=def claimed no 1780000000\nrecord={record}\n"
    if deleted:
        world.store.runs.hide("other")

    asyncio.run(Engine(world.context).reconciler.look("box"))

    assert [orphan.run for orphan in world.context.fleet.orphans["box"]] == (["other"] if deleted else [])
    assert (world.store.jobs.get("def") is None) == deleted


def test_a_machine_gets_nothing_by_a_job_that_it_made_up(world: World, machine: Told) -> None:
    world.store.secrets.set("TOKEN", "a secret value", "2026-01-01T00:00:00.000Z")
    run = replace(world.store.runs.require("run"), name="other")
    definition = replace(
        world.job.definition,
        secrets=("TOKEN",),
        registry_auth=RegistryAuth(username="ann", password="TOKEN"),
        retry=Retry(attempts=99),
        preemptible=True,
    )
    forged = {"cached_from": "abc", "storages": (("/etc", ""),), "preempted_by": "abc", "yielding": True}
    job = replace(world.job, id="def", run="other", definition=definition, **forged)
    record = wire.encode(LaunchRecord(run=run, job=job)).decode()
    machine.stock = f"attempt=def claimed no 1780000000\nrecord={record}\n"

    asyncio.run(Engine(world.context).reconciler.look("box"))

    found = world.store.jobs.require("def")
    assert (found.definition.secrets, found.definition.registry_auth) == ((), None)
    assert (found.definition.retry, found.definition.preemptible) == (None, False)
    assert (found.cached_from, found.storages, found.preempted_by, found.yielding) == (None, (), None, False)
    assert found.key == "", "no other job gets its result"
    for status in (Status.UPLOADING, Status.DONE):
        world.store.jobs.change("def", status=status)
    assert world.store.jobs.last_done(found.workflow, run.snapshot.repo) is None, "nor is compared with it"
    assert not again(replace(found, cause="lost"), 125)


def test_a_runner_of_another_server_gets_nothing_and_the_job_says_so(world: World, machine: Told) -> None:
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True)
    machine.stock = Result(95, b"", b"owner=lab7:/home/ann/.dstack\n")

    engine_started(world)

    assert (world.job.status, world.job.reason_code) == (Status.PREPARING, ReasonCode.SERVER_COPIED)
    assert "lab7:/home/ann/.dstack" in (world.job.reason.text if world.job.reason else "")
    assert {command.name for command in machine.host.commands} == {ASKING}


def test_a_server_on_a_copied_home_asks_no_runner(world: World, machine: Told) -> None:
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True)
    world.store.settings.set("home", f"1 lab7:{world.layout.home}")

    engine_started(world)

    assert (world.job.status, world.job.reason_code) == (Status.PREPARING, ReasonCode.SERVER_COPIED)
    assert f"lab7:{world.layout.home}" in (world.job.reason.text if world.job.reason else "")
    assert machine.host.commands == []


def test_a_job_of_the_same_machine_under_another_name_is_no_orphan(world: World, machine: Told) -> None:
    box = world.store.runners.require("box")
    world.store.runners.add(replace(box, name="alias"))
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box", launching=True)
    machine.stock = "attempt=abc claimed no 1780000000\nattempt=other claimed yes 1780000000\n"

    asyncio.run(Engine(world.context).reconciler.greet("alias"))

    assert [orphan.name for orphan in world.context.fleet.orphans["alias"]] == ["other"]
    assert world.job.runner == "box"


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PREPARING])
def test_a_container_of_another_account_on_the_machine_is_not_adopted(
    world: World, machine: Told, status: Status
) -> None:
    """Both accounts use the same Docker, but the job's folder is the other's."""
    box = world.store.runners.require("box")
    facts = replace(box.facts, user="ann", root="/home/ann/x") if box.facts else None
    world.store.runners.change("box", facts=facts)
    world.store.runners.add(replace(box, name="bob", facts=facts and replace(facts, user="bob", root="/home/bob/x")))
    if status is Status.PREPARING:
        world.store.jobs.change("abc", status=status, runner="box", launching=True)
    machine.stock = "container=dstack-abc Up 3 minutes\ncontainer=dstack-other Up 3 minutes\n"

    asyncio.run(Engine(world.context).reconciler.greet("bob"))

    assert (world.job.status, world.job.runner) == (status, "box" if status is Status.PREPARING else None)
    assert "other" in [orphan.name for orphan in world.context.fleet.orphans["bob"]]


def engine_started(world: World) -> None:
    """Let a new server drive the job for a moment."""

    async def lived() -> None:
        engine = Engine(world.context)
        engine.drive("abc")
        while world.job.reason is None:
            await asyncio.sleep(0.01)
        await engine.close()

    asyncio.run(asyncio.wait_for(lived(), 20))
