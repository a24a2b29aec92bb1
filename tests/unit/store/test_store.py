"""Runs, jobs and runners as they are recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import ConflictError, NotFoundError, UsageError
from dstack.model.api import wire
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Origin, Run
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Phase, Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.runner.runner import Address, Runner
from dstack.store import database
from dstack.store.migrations import STEPS
from dstack.store.store import Store
from tests.unit.store.test_migrations import at_step

WORKFLOW = Workflow(name="train", image="busybox", commands=("true",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    yield opened
    opened.close()


def run(name: str, *, user: str = "ann", repo: str = "r") -> Run:
    return Run(
        name=name,
        workflow="train",
        user=user,
        submitted_at="2026-01-01T00:00:00.000Z",
        snapshot=Snapshot(repo=repo, tree="t"),
        variables={},
    )


def job(job_id: str, run_name: str, **changes: object) -> Job:
    base = {
        "id": job_id,
        "run": run_name,
        "workflow": "train",
        "definition": WORKFLOW,
        "variables": Variables(),
        "image": "busybox",
        "key": "k",
        "why": "",
        "submitted_at": "2026-01-01T00:00:00.000Z",
    }
    return Job(**{**base, **changes})  # type: ignore[arg-type]


def test_what_is_recorded_is_there_after_reopening(tmp_path: Path) -> None:
    store = Store(ServerLayout(tmp_path))
    server = store.settings.server_id
    store.runs.add(run("brave-otter-7"))
    store.jobs.add(job("aa", "brave-otter-7"))
    store.runners.add(Runner(name="lab1", address=Address(host="lab1")))
    store.close()

    again = Store(ServerLayout(tmp_path))

    assert again.settings.server_id == server
    assert again.runs.require("brave-otter-7") == run("brave-otter-7")
    assert again.jobs.of("brave-otter-7") == [job("aa", "brave-otter-7")]
    assert again.runners.all() == [Runner(name="lab1", address=Address(host="lab1"))]
    again.close()


ELSEWHERE = Reason(ReasonCode.HELD, "changed elsewhere")


def test_a_job_moves_only_legally(store: Store) -> None:
    store.jobs.add(job("aa", "r"))

    with pytest.raises(ValueError, match="queued can't become running"):
        store.jobs.change("aa", status=Status.RUNNING)

    assert store.jobs.require("aa").status is Status.QUEUED


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    def broken() -> None:
        with store.database.transaction():
            store.runs.add(run("one"))
            store.runs.add(run("one"))

    with pytest.raises(ConflictError, match="already exists"):
        broken()

    assert store.runs.get("one") is None


def test_prefixes_find_runs_and_the_whole_name_wins(store: Store) -> None:
    for name in ("brave-otter-7", "brave-otter-70", "calm_fox-1", "calmXfox-1"):
        store.runs.add(run(name))

    assert store.runs.matching("brave-otter-7") == ["brave-otter-7"]
    assert sorted(store.runs.matching("brave")) == ["brave-otter-7", "brave-otter-70"]
    assert store.runs.matching("calm_") == ["calm_fox-1"]
    assert store.runs.matching("%") == []


def test_newest_runs_come_first_and_can_be_narrowed(store: Store) -> None:
    for name, user in (("a", "ann"), ("b", "bob"), ("c", "ann")):
        store.runs.add(run(name, user=user))

    assert [found.name for found in store.runs.newest(2)] == ["c", "b"]
    assert [found.name for found in store.runs.newest(9, user="ann")] == ["c", "a"]
    assert store.runs.newest(9, workflow="other") == []


def test_cache_looks_at_done_jobs_that_really_ran(store: Store) -> None:
    store.runs.add(run("one"))
    store.runs.add(run("two", repo="other"))
    store.jobs.add(job("failed", "one", status=Status.FAILED))
    store.jobs.add(job("ran", "one", status=Status.DONE))
    store.jobs.add(job("cached", "one", status=Status.DONE, cached_from="ran"))

    assert [found.id for found in store.jobs.done_with("k")] == ["ran"]
    assert store.jobs.done_with("other") == []
    last = store.jobs.last_done("train", "r")
    assert last is not None
    assert last.id == "cached"
    assert store.jobs.last_done("train", "other") is None


def test_jobs_to_discard_are_those_that_ended_on_the_runner(store: Store) -> None:
    store.jobs.add(job("a", "one", status=Status.RUNNING, runner="lab1"))
    store.jobs.add(job("b", "one", status=Status.DONE, runner="lab1"))
    store.jobs.add(job("c", "one", status=Status.DONE, runner="lab1", discarded=True))
    store.jobs.add(job("d", "one", status=Status.DONE, runner="lab2"))

    assert [found.id for found in store.jobs.to_discard("lab1")] == ["b"]


def test_removing_a_runner_forgets_what_it_held(store: Store) -> None:
    store.runners.add(Runner(name="lab1", address=Address(host="lab1")))
    store.known_objects.add("lab1", "repo", ["c", "t", "c"])
    assert store.known_objects.of("lab1", "repo") == ["c", "t"]

    store.runners.remove("lab1")

    assert store.known_objects.of("lab1", "repo") == []
    with pytest.raises(NotFoundError, match="no runner 'lab1'"):
        store.runners.require("lab1")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = f"server:/export / ext4 rw 0 0\nserver:/home {tmp_path} nfs4 rw 0 0\n"
    monkeypatch.setattr(database.Path, "read_text", lambda *_, **__: mounts)

    with pytest.raises(UsageError, match="network file system"):
        database.refuse_network_file_system(tmp_path)


def test_state_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    store = Store(ServerLayout(tmp_path))
    store.database.execute("PRAGMA user_version = 999")
    store.close()

    with pytest.raises(UsageError, match="newer dstack"):
        Store(ServerLayout(tmp_path))


def test_what_was_pulled_is_forgotten_with_its_runner(store: Store) -> None:
    store.runners.add(Runner(name="lab1", address=Address(host="lab1")))
    store.pulled_images.add("lab1", "busybox", "sha256:1")
    store.pulled_images.add("lab1", "busybox", "sha256:2")
    assert store.pulled_images.of("lab1") == {"busybox": "sha256:2"}

    store.runners.remove("lab1")

    assert store.pulled_images.of("lab1") == {}


def test_a_result_of_a_deleted_run_is_known_by_the_run_that_uses_it(store: Store) -> None:
    for name in ("first", "second"):
        store.runs.add(run(name))
    store.jobs.add(job("aa", "first", status=Status.DONE))
    store.jobs.add(job("bb", "second", status=Status.DONE, cached_from="aa"))
    assert [found.id for found in store.jobs.done_with("k")] == ["aa"]
    assert store.jobs.known_as(store.jobs.require("aa")) == "first"

    store.runs.hide("first")

    assert [found.id for found in store.jobs.done_with("k")] == ["aa"]
    assert store.jobs.known_as(store.jobs.require("aa")) == "second"
    store.runs.hide("second")
    assert store.jobs.done_with("k") == []


def test_what_a_job_was_given_can_be_forgotten(store: Store) -> None:
    store.secrets.give("aa", ["one", "two"])
    store.secrets.give("bb", ["three"])

    store.secrets.forget("aa")

    assert store.secrets.given("aa") == []
    assert store.secrets.given("bb") == ["three"]


def test_what_is_kept_in_memory_is_what_is_stored(tmp_path: Path, store: Store) -> None:
    for job_id in ("aa", "bb", "cc"):
        store.jobs.add(job(job_id, "r"))
    store.runners.add(Runner(name="lab1", address=Address(host="lab1")))
    store.known_objects.add("lab1", "r", ["tree"])
    assert store.known_objects.holders("r") == {"tree": ["lab1"]}

    def broken() -> None:
        with store.database.transaction():
            store.jobs.change("aa", reason=Reason(ReasonCode.HELD, "undone"))
            store.jobs.add(job("dd", "r"))
            store.runners.change("lab1", drained="undone")
            store.known_objects.add("lab1", "r", ["other"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert [(each.id, each.reason) for each in store.jobs.unfinished()] == [("aa", None), ("bb", None), ("cc", None)]
    assert store.runners.require("lab1").drained is None
    assert store.known_objects.holders("r") == {"tree": ["lab1"]}

    elsewhere = Store(ServerLayout(tmp_path))
    elsewhere.jobs.change("bb", status=Status.STOPPED)
    elsewhere.jobs.change("cc", reason=ELSEWHERE)
    elsewhere.runners.remove("lab1")
    elsewhere.close()

    assert [(each.id, each.reason) for each in store.jobs.unfinished()] == [("aa", None), ("cc", ELSEWHERE)]
    assert store.jobs.require("bb").status is Status.STOPPED
    assert store.runners.all() == []
    assert store.known_objects.holders("r") == {}


def test_the_runners_that_had_an_image_follow_the_jobs(store: Store) -> None:
    store.jobs.add(job("aa", "r", runner="lab1"))
    assert store.jobs.images() == {}

    store.jobs.change("aa", image_digest="sha256:1")

    assert store.jobs.images() == {"busybox": {"lab1"}}


def test_the_reasons_of_an_earlier_version_can_be_read(tmp_path: Path) -> None:
    earlier = json.loads(wire.encode(job("aa", "one")))
    for name in ("final_status", "final_reason", "preempted_by", "preparation", "progress"):
        del earlier[name]
    attempt = {"number": 1, "status": "lost", "exit_code": 125, "reason": "it restarted", "runner": "lab", "gpus": []}
    attempt |= {"started_at": None, "finished_at": "2026-01-01T00:00:00.000Z", "log_start": 0, "log_end": 0}
    earlier |= {"reason": "storing", "end": "failed", "ending": "no \udc80", "preempted": "preempted by bob's two"}
    earlier |= {"status": "uploading", "history": [attempt]}
    layout = ServerLayout(tmp_path)
    layout.state.mkdir(parents=True)
    with at_step(layout.database, list(STEPS).index("structure_reasons")) as before:
        row = {"id": "aa", "run": "one", "workflow": "train", "status": "uploading", "key": "k"}
        before.table("jobs").insert({**row, "data": json.dumps(earlier)})

    read = Store(ServerLayout(tmp_path)).jobs.require("aa")

    assert read.reason == Reason(None, "storing")
    assert (read.final_status, read.final_reason) == (Status.FAILED, Reason(None, "no \udc80"))
    assert read.preempted_by == "bob's two"
    assert [each.reason for each in read.history] == [Reason(None, "it restarted")]
    assert (read.phase, read.reason_code) == (Phase.UPLOADING, None)


def test_a_launch_of_an_earlier_version_can_be_read() -> None:
    recorded = json.loads(wire.encode(job("aa", "one"))) | {"launch": {"boot": "b1", "docker": "7:100"}}

    assert wire.decode(json.dumps(recorded).encode(), Job).launch == Origin(boot="b1", engine="7:100")
