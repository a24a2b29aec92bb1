"""Which jobs of a submission come from the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dstack.engine.submission.plan import Planner
from dstack.errors import UsageError
from dstack.model.api.runs import Submission
from dstack.model.code.snapshot import Snapshot
from dstack.model.code.tree import TreeFile
from dstack.model.job.job import Job
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import DependsOn, Variables, Workflow
from dstack.store.store import Store

FILES = [TreeFile("encode.py", "100644", "aaa")]
BASE = Workflow(name="base", image="busybox", commands=("make",), artifacts=("out/$job_id", "of/$run_name"))
TOP = Workflow(name="top", image="busybox", commands=("use",), depends_on=DependsOn(workflows=("base",)))
SUBMISSION = Submission(
    workflow="top",
    workflows=(BASE, TOP),
    variables={"base": Variables({"model": "124M"}), "top": Variables({"model": "124M"})},
    snapshot=Snapshot(repo="r", tree="t"),
    user="ann",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    yield opened
    opened.close()


def planned(store: Store, submission: Submission, run: str = "brave-otter-7", now: str = "now") -> list[Job]:
    return Planner(store, FILES, run, now, {}).plan(submission)


def keys(jobs: list[Job]) -> list[str]:
    return [job.key for job in jobs]


CHANGES: dict[str, Any] = {
    "user": "bob",
    "name": "mine",
    "runner": "lab",
    "local": True,
    "no_cache": True,
    "gpus": 2,
    "environment": {"TOKEN": "x"},
    "dry_run": True,
    "from_run": "calm-fox-1",
    "priority": 9,
    "timeout": 5.0,
    "singleton": True,
    "once": "nightly",
    "wait_for_runner": True,
    "trigger": "nightly",
}


def test_every_field_of_a_submission_was_thought_of() -> None:
    inside = {"workflow", "workflows", "variables", "snapshot"}
    assert inside | set(CHANGES) == {field.name for field in msgspec.structs.fields(Submission)}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"environment": {"A": "x" * 140_000}}, "A"),
        ({"variables": {"base": Variables(), "top": Variables({"model": "x" * 140_000})}}, "MODEL"),
        (
            {"variables": {"base": Variables(), "top": Variables({}, {"a": "x" * 70_000, "b": "y" * 70_000})}},
            "config_args",
        ),
    ],
)
def test_an_environment_that_no_program_could_get_is_refused(store: Store, change: dict[str, Any], name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^workflow '\w+' can't run: {name} has 14.,... bytes in the environment, and"
    ):
        planned(store, msgspec.structs.replace(SUBMISSION, **change))


@pytest.mark.parametrize("name", CHANGES)
def test_how_a_run_is_submitted_does_not_change_its_keys(store: Store, name: str) -> None:
    before = planned(store, SUBMISSION)

    after = planned(store, msgspec.structs.replace(SUBMISSION, **{name: CHANGES[name]}), run="other-run-1", now="later")

    assert keys(after) == keys(before)
    assert [job.id for job in after] != [job.id for job in before]


def test_a_change_below_changes_the_keys_above(store: Store) -> None:
    before = planned(store, SUBMISSION)
    workflows = (msgspec.structs.replace(BASE, commands=("make", "more")), TOP)

    after = planned(store, msgspec.structs.replace(SUBMISSION, workflows=workflows))

    assert not set(keys(after)) & set(keys(before))
