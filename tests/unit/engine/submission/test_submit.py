"""A submission becomes a run, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Fleet
from dstack.engine.retention.retention import Retention
from dstack.engine.submission.submit import LOCAL, Submitted, Submitter
from dstack.errors import ConflictError, NotFoundError, TryAgainError, UsageError
from dstack.hosts.pool import Pool
from dstack.model.code.snapshot import Snapshot
from dstack.model.code.tree import Change, SizedFile
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Resources
from dstack.model.runner.runner import Address, Facts, Runner
from dstack.plumbing.clock import age, moment
from dstack.plumbing.modes import Modes
from dstack.server.routes.runs import RunRoutes
from dstack.store.store import Store
from tests.unit.engine.submission.test_plan import BASE, FILES, SUBMISSION, TOP


class FakeMirror:
    """A mirror with the code of every run, unless it was lost."""

    def __init__(self) -> None:
        self.received: list[tuple[Snapshot, Path]] = []
        self.lost = False

    def receive(self, snapshot: Snapshot, pack: Path) -> None:
        self.received.append((snapshot, pack))

    def has(self, snapshot: Snapshot) -> bool:
        return not self.lost

    def files(self, snapshot: Snapshot) -> Any:
        return FILES

    def changes(self, commit: str | None, tree: str) -> list[Change]:
        return [Change("encode.py", "added", 3)]

    def sizes(self, tree: str) -> list[SizedFile]:
        return [SizedFile("encode.py", 3)]

    def modes_of(self, snapshot: Snapshot) -> Modes:
        return Modes()


class World:
    """A server with one probed runner."""

    def __init__(self, home: Path) -> None:
        self.store = Store(ServerLayout(home))
        self.store.runners.add(Runner(name="box", address=Address(host="box"), facts=Facts(machine="m", cpus=4)))
        self.mirror = FakeMirror()
        fleet = Fleet(self.store, Pool(), lambda: None)
        context = Context(layout=ServerLayout(home), store=self.store, fleet=fleet, events=Events())
        self.engine = Engine(context)
        self.submitter = Submitter(context, self.engine)
        self.probed: list[str] = []

        async def check(name: str, **options: float) -> None:
            self.probed.append(name)

        async def check_all(names: list[str], **options: float) -> None:
            self.probed += names

        context.mirror = lambda repo: self.mirror  # type: ignore[method-assign, assignment, return-value]
        fleet.check, fleet.check_all = check, check_all  # type: ignore[method-assign, assignment]
        context.tasks.start = lambda *given, **how: None  # type: ignore[method-assign]

    def submit(self, pack: Path | None = None, **changes: Any) -> Submitted:
        return asyncio.run(self.submitter.submit(replace(SUBMISSION, **changes), pack))

    @property
    def runs(self) -> list[str]:
        return [run.name for run in self.store.runs.newest(-1)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_run_and_its_jobs_are_recorded_and_the_engine_wakes_up(world: World) -> None:
    # when
    submitted = world.submit(Path("pack"), name="first", gpus=0, environment={"A": "b"})

    # then
    run = world.store.runs.require("first")
    assert submitted.run == run
    assert (run.user, run.environment, run.workflows, run.pin) == ("ann", {"A": "b"}, (BASE, TOP), None)
    assert [job.workflow for job in world.store.jobs.of("first")] == ["base", "top"]
    assert all(world.store.cache_keys.components(job.key) for job in submitted.jobs)
    assert world.mirror.received == [(SUBMISSION.snapshot, Path("pack"))]
    assert world.probed == ["box"]
    assert world.engine.wake.is_set()


def test_code_that_the_server_has_needs_no_pack(world: World) -> None:
    assert world.submit().run.name in world.runs
    assert world.mirror.received == []


def test_a_run_is_repeated_with_its_code(world: World) -> None:
    # given
    world.submit(name="first")

    # when
    again = world.submit(from_run="fir", snapshot=Snapshot(repo="other", tree="other"))

    # then
    assert again.run.snapshot == SUBMISSION.snapshot
    world.mirror.lost = True
    with pytest.raises(NotFoundError, match="the code of first is no longer on the server"):
        world.submit(from_run="first")


def test_a_run_whose_code_is_gone_has_no_patch(world: World) -> None:
    world.submit(name="first")
    world.mirror.lost = True

    with pytest.raises(NotFoundError, match="the code of first is no longer on the server") as refused:
        asyncio.run(RunRoutes(world.engine, Retention(world.engine.context)).diff("first"))

    assert refused.value.hint == f"from a working tree, type: dstack run {SUBMISSION.workflow}"


def test_a_submission_says_when_it_was_accepted_by_a_clock_that_never_jumps(world: World) -> None:
    passed = moment()
    run = world.submit(name="first").run

    assert run.accepted is not None
    assert 0 <= (passed.until(run.accepted) or 0) < 60
    assert age(run) < 60


def test_the_same_key_returns_the_same_run(world: World) -> None:
    assert world.submit(once="nightly").run == world.submit(once="nightly").run
    assert len(world.runs) == 1


def test_a_key_is_the_users_own(world: World) -> None:
    anns, bobs = (world.submit(once="nightly", user=user).run for user in ("ann", "bob"))

    assert anns.name != bobs.name
    assert [world.submit(once="nightly", user=user).run for user in ("ann", "bob")] == [anns, bobs]


def test_one_unfinished_run_at_a_time(world: World) -> None:
    world.submit(name="first", singleton=True)

    with pytest.raises(TryAgainError, match="'top' already has an unfinished run, first of ann"):
        world.submit(singleton=True)

    assert world.runs == ["first"]


def test_two_at_once_share_the_job_that_both_need(world: World) -> None:
    async def both() -> list[Submitted]:
        return await asyncio.gather(*(world.submitter.submit(replace(SUBMISSION, name=name)) for name in ("a", "b")))

    first, second = asyncio.run(both())

    assert [job.shares for job in first.jobs + second.jobs].count(None) == 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "taken"}, ConflictError, "a run named 'taken' already exists"),
        ({"runner": "lab"}, UsageError, "base can't run: no runner has the name or label 'lab'"),
        ({"gpus": 2}, UsageError, "top can't run: it needs 2 GPUs"),
        (
            {"workflows": (BASE, replace(TOP, secrets=("KEY",)))},
            UsageError,
            "top needs the secret 'KEY', which is not set",
        ),
    ],
)
def test_what_can_not_run_is_refused(
    world: World, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    # given
    world.submit(name="taken")

    # when, then
    with pytest.raises(error, match=message):
        world.submit(**changes)
    assert world.runs == ["taken"]


def test_a_secret_that_is_not_set_has_a_code_of_its_own(world: World) -> None:
    with pytest.raises(UsageError) as refused:
        world.submit(workflows=(BASE, replace(TOP, secrets=("KEY",))))

    assert refused.value.code == "secret-missing"
    assert world.runs == []


def test_a_run_may_wait_for_a_runner(world: World) -> None:
    large = replace(TOP, resources=Resources(cpu="64"))

    submitted = world.submit(workflows=(BASE, large), wait_for_runner=True)

    assert [job.status for job in submitted.jobs] == [Status.QUEUED, Status.QUEUED]


def test_the_servers_own_machine_becomes_a_runner_when_it_is_asked_for(world: World) -> None:
    world.submit()
    assert world.store.runners.get(LOCAL) is None

    world.submit(local=True)

    local = world.store.runners.require(LOCAL)
    assert (local.hidden, world.runs != []) == (True, True)
    assert world.probed == ["box", LOCAL]


def test_a_preview_records_nothing(world: World) -> None:
    # when
    preview = asyncio.run(world.submitter.preview(replace(SUBMISSION, dry_run=True, name="mine")))

    # then
    assert world.runs == []
    assert [job.workflow for job in preview.draft.jobs] == ["base", "top"]
    assert (preview.draft.run.name, preview.files[0].path) == ("mine", "encode.py")
    assert preview.schedule.placements or preview.schedule.reasons


def test_a_preview_needs_no_runner(world: World) -> None:
    # given
    world.store.runners.remove("box")

    # when
    preview = asyncio.run(world.submitter.preview(replace(SUBMISSION, dry_run=True)))

    # then
    assert {reason.text for reason in preview.schedule.reasons.values()} == {"no runner has been added yet"}
    with pytest.raises(UsageError, match="no runner has been added yet"):
        world.submit()


def test_the_advice_does_not_contradict_what_was_typed(world: World) -> None:
    world.store.runners.remove("box")

    with pytest.raises(UsageError) as anywhere:
        world.submit()
    with pytest.raises(UsageError) as named:
        world.submit(runner="lab")

    assert anywhere.value.hint == "dstack runners add HOST, or add --local to run it on this machine"
    assert named.value.hint == "dstack runners add HOST"
