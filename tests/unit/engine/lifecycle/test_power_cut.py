"""What is on disk before each act that can't be undone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.engine.engine import Engine
from dstack.engine.lifecycle import watch
from dstack.engine.retention.clear import clear
from dstack.engine.retention.retention import Retention
from dstack.model.project.workflow import Retry
from tests.unit.engine.lifecycle.machine import Machine, World
from tests.unit.syncs import Syncs

WAL = "state.db-wal"
LOG = ["abc", "abc.times", "logs"]
MANIFEST = ["run", "artifacts"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.0)


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int = 0) -> tuple[World, Syncs]:
    """A job that was placed, and the steps from here on: questions to its machine, and syncs."""

    def asked(when: str) -> None:
        if when.startswith("before") and not when.endswith("log"):
            steps.append(when.removeprefix("before "))

    world = World(tmp_path, Machine(exit_code=exit_code, trouble=asked))
    steps = Syncs(monkeypatch)
    return world, steps


def test_a_run_syncs_before_it_launches_and_before_it_discards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, steps = begun(tmp_path, monkeypatch)

    asyncio.run(world.drive().run())
    asyncio.run(clear(world.context, "abc"))

    assert steps == [WAL, "launching the job", "observing the job", *LOG, *MANIFEST, WAL, "removing the job's folder"]


def test_a_machine_that_gets_a_new_owner_is_told_once_that_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, steps = begun(tmp_path, monkeypatch)
    engine = Engine(world.context)

    asyncio.run(engine.reconciler.greet("box"))

    assert steps == [WAL, "asking what is on the machine"]


def test_why_a_job_has_to_end_is_on_disk_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, steps = begun(tmp_path, monkeypatch)
    world.store.jobs.change("abc", launching=True, stop="stop")

    asyncio.run(world.drive().run())

    assert steps == [WAL, "stopping the job"]


def test_an_attempt_that_is_removed_for_the_next_one_left_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, steps = begun(tmp_path, monkeypatch, exit_code=1)
    definition = replace(world.job.definition, retry=Retry(attempts=2, on=("error",)))
    world.store.jobs.change("abc", definition=definition)

    asyncio.run(world.drive().run())

    assert world.job.attempt == 2
    assert steps == [WAL, "launching the job", "observing the job", *LOG, *MANIFEST, WAL, "removing the job's folder"]


def test_a_deletion_is_on_disk_before_artifacts_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, steps = begun(tmp_path, monkeypatch)
    world.machine.made = {"out": "target"}
    definition = replace(world.job.definition, artifacts=("out",))
    world.store.jobs.change("abc", definition=definition)
    asyncio.run(world.drive().run())
    steps.clear()
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        steps.append(f"removing {path.name}")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    asyncio.run(Retention(world.context).delete([world.store.runs.require("run")]))

    assert steps[:3] == [WAL, "removing job", "run"]
