"""A sweep from its submission to its end, over a real store. The test ends the jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.engine.sweeps.drive import SweepDrive
from dstack.engine.sweeps.sweeps import SweepDrives
from dstack.errors import ConflictError, NotFoundError, StateBusyError, UsageError
from dstack.model.job.job import Job
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from dstack.model.metrics.series import Series
from dstack.model.metrics.state import ReaderState
from dstack.model.project.workflow import Interval, MetricGoal, StopEarly, SweepSettings, Variables, Workflow
from dstack.model.sweep.status import SweepMethod, SweepStatus
from dstack.model.sweep.sweep import Sweep, Trial
from dstack.server.sweeps.views import SweepViews, exit_code
from dstack.store.lookup import best_run, job_named, jobs_named, run_named, runs_named, sweep_named
from tests.unit.engine.submission.test_plan import SUBMISSION
from tests.unit.engine.submission.test_submit import World

TRAIN = Workflow(name="train", image="busybox", commands=("true",))
GRID = SweepSettings(
    params={"lr": ("1", "2", "3"), "model": ("a", "b")}, metric=MetricGoal(name="loss"), parallel=2, seed=1
)
VARIABLES = {"train": Variables({"model": "124M"}, {"lr": "0", "seed": "1"})}
SUBMITTED = replace(SUBMISSION, workflow="train", workflows=(TRAIN,), variables=VARIABLES)


class Swept(World):
    """A server with one sweep, whose steps the test takes."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.context = self.engine.context
        self.drives = SweepDrives(self.context, self.engine)

    def begin(self, settings: SweepSettings = GRID, **changes: Any) -> Sweep:
        submission = replace(SUBMITTED, name="s", **changes)
        return asyncio.run(self.drives.submit(settings, submission, Path("pack")))

    def step(self) -> None:
        """Take a step as a server that has just started."""
        asyncio.run(SweepDrive(self.context, self.engine, "s").step())

    @property
    def sweep(self) -> Sweep:
        return self.store.sweeps.require("s")

    @property
    def trials(self) -> list[Trial]:
        return self.store.sweeps.trials("s")

    def job(self, run: str) -> Job:
        (job,) = self.store.jobs.of(run)
        return job

    def start(self, run: str) -> None:
        for status in (Status.PREPARING, Status.RUNNING):
            self.store.jobs.change(self.job(run).id, status=status)

    def end(self, run: str, loss: float | None = None, status: Status = Status.DONE, **changes: Any) -> None:
        if loss is not None:
            self.log(run, loss)
        code = {Status.DONE: 0, Status.FAILED: 7, Status.STOPPED: 143, Status.LOST: 125}[status]
        given = {"exit_code": code, "finished_at": "2026-01-01T00:00:09.000Z", **changes}
        self.store.jobs.change(self.job(run).id, status=status, **given)

    def log(self, run: str, *values: float, name: str = "loss") -> None:
        series = self.store.metrics.load(self.job(run).id)
        for value in values:
            series.setdefault(name, Series()).add(None, 0.0, value)
        self.store.metrics.save(self.job(run), ReaderState(position=0), series)

    def to_the_end(self, status: Status = Status.DONE) -> None:
        while not self.sweep.finished:
            self.step()
            for trial in self.store.sweeps.unfinished_trials("s"):
                self.end(trial.run, float(trial.number), status)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Swept]:
    made = Swept(tmp_path)
    yield made
    made.store.close()


def test_as_many_trials_as_the_plan_says_are_on_their_way(world: Swept) -> None:
    # when
    world.begin()
    world.step()
    world.step()
    # then
    assert world.runs == ["s-2", "s-1"]
    first = world.store.runs.require("s-1")
    assert first.variables == {"model": "a", "lr": "1", "seed": "1"}
    assert first.inputs["train"] == Variables({"model": "a"}, {"lr": "1", "seed": "1"})
    assert world.job("s-1").definition.metrics == "auto"
    # and
    world.end("s-1", 0.5)
    world.step()
    assert [(trial.run, trial.status.value, trial.value) for trial in world.trials] == [
        ("s-1", "done", 0.5),
        ("s-2", "queued", None),
        ("s-3", "queued", None),
    ]


def test_a_sweep_ends_with_its_last_trial(world: Swept) -> None:
    world.begin()
    world.to_the_end()

    assert world.sweep.status is SweepStatus.DONE
    assert [trial.values for trial in world.trials] == [{"lr": lr, "model": model} for lr in "123" for model in "ab"]
    assert run_named(world.store, "s:best").name == "s-1"
    assert job_named(world.store, "s:best") == jobs_named(world.store, "s:best")[1][0] == world.job("s-1")
    assert [run.name for run in runs_named(world.store, ["s"])] == [f"s-{number}" for number in range(1, 7)]
    kinds = [event.kind for event in world.store.events.select() if event.kind.startswith("sweep.")]
    assert kinds.count("sweep.trial-added") == kinds.count("sweep.trial-ended") == 6
    assert (kinds[0], kinds[-1]) == ("sweep.submitted", "sweep.done")


def test_a_crash_between_any_two_lines_neither_loses_nor_doubles_a_trial(
    world: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write to the database is the last one of some server."""
    world.begin()
    writes, fatal = 0, 1
    transaction = world.store.database.transaction

    def dying() -> Any:
        nonlocal writes
        if not world.store.database.conn.in_transaction:
            writes += 1
            if writes == fatal:
                raise StateBusyError("killed")
        return transaction()

    monkeypatch.setattr(world.store.database, "transaction", dying)
    while not world.sweep.finished:
        try:
            world.step()
        except StateBusyError:
            fatal, writes = fatal + 1 if fatal < 4 else 1, 0
            continue
        writes = -1000
        for trial in world.store.sweeps.unfinished_trials("s"):
            world.end(trial.run, 1.0)
        writes = 0

    assert sorted(world.runs) == [f"s-{number}" for number in range(1, 7)]
    assert len({tuple(trial.values.values()) for trial in world.trials}) == 6


def test_failed_trials_stay_failed_until_somebody_wants_them_again(world: Swept) -> None:
    # given
    world.begin(replace(GRID, max_failures=2))
    world.to_the_end(Status.FAILED)
    assert (world.sweep.status, world.sweep.reason and world.sweep.reason.code) == (
        SweepStatus.FAILED,
        ReasonCode.MAX_FAILURES,
    )
    assert exit_code(world.trials) == 7
    # when
    asyncio.run(world.drives.retry_failed(world.sweep))
    world.to_the_end()
    # then
    assert [trial.run for trial in world.trials] == ["s-1.2", "s-2.2", "s-3", "s-4", "s-5", "s-6"]
    assert {trial.status for trial in world.trials} == {Status.DONE}
    assert exit_code(world.trials) == 0
    with pytest.raises(ConflictError, match="no failed trials"):
        asyncio.run(world.drives.retry_failed(world.sweep))


def test_a_stopped_sweep_goes_on_with_the_trials_that_were_stopped(world: Swept) -> None:
    # given
    world.begin()
    world.step()
    world.end("s-1", 3.0)
    world.drives.stop(world.sweep)
    world.step()
    stopped = world.job("s-2")
    assert (stopped.stop, stopped.stopped().code) == ("stop", ReasonCode.SWEEP_STOPPED)
    world.end("s-2", status=Status.STOPPED, reason=stopped.stopped())
    world.step()
    assert world.sweep.status is SweepStatus.STOPPED
    # when
    asyncio.run(world.drives.resume(world.sweep, None))
    world.to_the_end()
    # then
    assert [trial.run for trial in world.trials] == ["s-1", "s-2.2", "s-3", "s-4", "s-5", "s-6"]
    with pytest.raises(ConflictError, match="all of its 6 trials"):
        asyncio.run(world.drives.resume(world.sweep, None))


def test_a_trial_that_lost_is_stopped_and_says_against_what(world: Swept) -> None:
    # given
    world.begin(replace(GRID, parallel=4, stop_early=StopEarly(rule="median", warmup=2)))
    world.step()
    for number, loss in enumerate((1.0, 2.0, 3.0, 9.0), 1):
        world.start(f"s-{number}")
        world.log(f"s-{number}", loss, loss, loss)
    # when
    world.step()
    # then
    job = world.job("s-4")
    why = job.stopped()
    assert (job.stop, why.code) == ("stop", ReasonCode.BEATEN)
    assert why.text == "stopped early: loss 9 at step 2 is worse than the median of 3 other trials, 2"
    assert [world.job(f"s-{number}").stop for number in (1, 2)] == [None, None]
    # and
    world.end("s-4", status=Status.STOPPED, reason=why)
    world.step()
    assert (world.trials[3].value, world.trials[3].status) == (9.0, Status.STOPPED)


def test_a_metric_that_no_trial_printed_is_a_reason_that_says_what_to_do(world: Swept) -> None:
    world.begin()
    while not world.sweep.finished:
        world.step()
        for trial in world.store.sweeps.unfinished_trials("s"):
            world.log(trial.run, 1.0, name="los")
            world.end(trial.run)

    reason = world.sweep.reason
    assert reason is not None
    assert reason.code is ReasonCode.METRIC_MISSING
    assert "no metric 'loss' was found in its log; it has los; did you mean 'los'?" in reason.text
    assert "metrics: {loss: 'REGEX'}" in reason.text
    with pytest.raises(NotFoundError, match="no best trial"):
        best_run(world.store, "s:best")


def test_a_space_that_is_used_up_is_said(world: Swept) -> None:
    settings = replace(GRID, method="random", max_runs=50)
    world.begin(replace(settings, params={"lr": ("1", "2")}))
    world.to_the_end()

    assert len(world.trials) == 2
    reason = world.sweep.reason
    assert (world.sweep.status, reason and reason.code) == (SweepStatus.DONE, ReasonCode.SPACE_USED_UP)


def test_tpe_learns_from_the_trials(world: Swept) -> None:
    # given
    params = {"lr": Interval(min="0.0", max="10.0")}
    world.begin(replace(GRID, method="tpe", params=params, max_runs=14, parallel=1))
    # when
    while not world.sweep.finished:
        world.step()
        for trial in world.store.sweeps.unfinished_trials("s"):
            world.end(trial.run, (float(trial.values["lr"]) - 3) ** 2)
    # then
    assert world.sweep.plan.method is SweepMethod.TPE
    assert len({trial.values["lr"] for trial in world.trials}) == 14


def test_a_run_that_was_deleted_is_no_running_trial(world: Swept) -> None:
    world.begin()
    world.step()
    world.store.jobs.remove(world.job("s-1").id)
    world.store.runs.remove("s-1")
    world.step()

    reason = world.trials[0].reason
    assert (world.trials[0].status, reason and reason.code) == (Status.LOST, ReasonCode.RUN_DELETED)
    assert world.runs == ["s-3", "s-2"]


def test_a_sweep_that_makes_no_sense_records_nothing(world: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(name="known-1")
    world.submit(name="other")
    for changes, words in (
        ({"settings": replace(GRID, params={"lrr": ("1",)})}, "did you mean 'lr'?"),
        ({"environment": {}, "workflows": (replace(TRAIN, secrets=("KEY",)),)}, "needs the secret 'KEY'"),
    ):
        with pytest.raises(UsageError, match=words):
            world.begin(**changes)  # type: ignore[arg-type]
    for name in ("known", "other"):
        with pytest.raises(ConflictError, match="already exists"):
            asyncio.run(world.drives.submit(GRID, replace(SUBMITTED, name=name), None))
    with pytest.raises(UsageError, match="too long for a sweep"):
        asyncio.run(world.drives.submit(GRID, replace(SUBMITTED, name="x" * 60), None))

    assert world.store.sweeps.newest(9) == []
    with pytest.raises(NotFoundError, match="no sweep 's'"):
        sweep_named(world.store, "s")


def test_the_names_of_trials_are_not_for_other_runs(world: Swept) -> None:
    world.begin()
    for name in ("s", "s-7", "s-7.2"):
        with pytest.raises(ConflictError, match="belongs to the sweep s"):
            world.submit(name=name)

    assert world.submit(name="s-x").run.name == "s-x"


def test_what_users_see_of_a_sweep_that_runs(world: Swept) -> None:
    world.begin()
    world.step()
    world.start("s-1")
    world.log("s-1", 5.0, 4.0)

    view = SweepViews(world.context).sweep(world.sweep)

    assert (view.status.value, view.exit_code, view.best) == ("running", None, None)
    assert [(trial.status.value, trial.value, trial.exit_code) for trial in view.trials] == [
        ("running", 4.0, None),
        ("queued", None, None),
    ]
    summary = SweepViews(world.context).summary(world.sweep)
    assert (summary.trials, summary.metric and summary.metric.goal) == ({"unfinished": 2}, "minimize")
