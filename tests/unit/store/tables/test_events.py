"""The event log: what it contains, and that it agrees with what is stored."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dstack.model.api.artifacts import TagView
from dstack.model.api.events import EventView
from dstack.model.api.tokens import Role
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.runner.registration import Registration
from dstack.model.runner.runner import Address, Facts, Runner
from dstack.store.store import Store
from dstack.store.tables.events import acting
from tests.unit.store.test_store import job, run

NOW = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    yield opened
    opened.close()


def kinds(store: Store, **wanted: str) -> list[str]:
    return [event.kind for event in store.events.select(**wanted)]  # type: ignore[arg-type]


def last(store: Store) -> EventView:
    return store.events.select()[-1]


def test_the_life_of_a_job_is_in_it(store: Store) -> None:
    with acting("ann"):
        store.runs.add(run("one"))
        store.jobs.add(job("aa", "one"))
    for change in (
        {"status": Status.PREPARING, "runner": "lab1", "gpus": (0,)},
        {"launching": True},
        {"status": Status.RUNNING},
        {"status": Status.UPLOADING, "final_status": Status.DONE},
        {"status": Status.DONE, "exit_code": 0},
        {"discarded": True},
    ):
        store.jobs.change("aa", **change)

    events = store.events.select()

    expected = ["run.submitted", "job.queued", "job.placed", "job.running", "job.uploading", "job.done"]
    assert [event.kind for event in events] == expected
    assert [event.id for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.actor for event in events] == ["ann", "ann", "server", "server", "server", "server"]
    assert {(event.run, event.job) for event in events[1:]} == {("one", "aa")}
    assert (events[2].runner, events[2].data["gpus"]) == ("lab1", [0])
    assert events[-1].data["exit_code"] == 0
    assert sorted(event.time for event in events) == [event.time for event in events]


def test_who_asked_is_in_it(store: Store) -> None:
    store.jobs.add(job("aa", "one"))

    with acting("ann"):
        store.jobs.change("aa", stop="stop")
    assert (last(store).kind, last(store).actor) == ("job.stop-requested", "ann")
    store.jobs.change("aa", held="bob")
    assert (last(store).kind, last(store).actor) == ("job.held", "bob")
    store.jobs.change("aa", held=None)
    assert (last(store).kind, last(store).actor) == ("job.released", "server")


def test_what_happens_to_runners_is_in_it_but_not_what_probes_find(store: Store) -> None:
    store.runners.add(Runner(name="lab1", address=Address(host="lab1", user="ann")))
    store.runners.change("lab1", facts=Facts(machine="m"))
    store.runners.change("lab1", drained="a new disk")
    store.runners.change("lab1", drained=None)
    store.runners.change("lab1", labels=("a100",), gpus=2, facts=None)
    store.runners.remove("lab1")
    store.runners.add(Runner(name="local", address=Address(), hidden=True))
    store.runners.change("local", hidden=False)
    store.registrations.put(Registration(name="lab2", user="ann", address="lab2", port=22, host_keys=("key",)))
    store.registrations.change("lab2", interval=5.0)
    store.registrations.change("lab2", approved=True)

    assert [(event.kind, event.runner, event.data) for event in store.events.select()] == [
        ("runner.added", "lab1", {"address": "ann@lab1"}),
        ("runner.drained", "lab1", {"reason": "a new disk"}),
        ("runner.resumed", "lab1", {}),
        ("runner.changed", "lab1", {"changed": ["labels", "gpus"]}),
        ("runner.removed", "lab1", {}),
        ("runner.added", "local", {"address": str(Address())}),
        ("runner.approved", "lab2", {}),
    ]


def test_no_secret_is_in_it(store: Store) -> None:
    store.secrets.set("HF_TOKEN", "hf_value", NOW)
    store.secrets.delete("HF_TOKEN")
    store.tokens.create("ann", Role.MEMBER)
    store.tokens.revoke("ann")

    assert kinds(store) == ["secret.set", "secret.deleted", "token.created", "token.revoked"]
    assert [event.data for event in store.events.select()] == [
        {"name": "HF_TOKEN"},
        {"name": "HF_TOKEN"},
        {"name": "ann", "role": "member"},
        {"name": "ann"},
    ]


def test_settings_and_tags_are_in_it(store: Store) -> None:
    assert store.settings.server_id
    store.settings.set("storage", "/srv")
    store.settings.set("storage", "/srv")
    store.settings.set("endpoint_url", "")
    store.tags.set(TagView(name="base", run="one", job="aa", workflow="train", created_at=NOW))
    assert store.tags.delete("base")
    assert not store.tags.delete("base")

    assert [(event.kind, event.run, event.data) for event in store.events.select()] == [
        ("config.changed", None, {"name": "storage", "value": "/srv"}),
        ("tag.set", "one", {"name": "base"}),
        ("tag.deleted", "one", {"name": "base"}),
    ]


def test_a_change_that_is_undone_leaves_no_event_and_wakes_nobody(store: Store) -> None:
    store.jobs.add(job("aa", "one"))
    committed: list[set[str]] = []
    store.database.committed = committed.append

    def broken() -> None:
        with store.database.transaction():
            store.jobs.change("aa", status=Status.PREPARING)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert kinds(store) == ["job.queued"]
    assert committed == []
    with pytest.raises(ValueError, match="can't become running"):
        store.jobs.change("aa", status=Status.DONE) and store.jobs.change("aa", status=Status.RUNNING)

    assert kinds(store) == ["job.queued", "job.done"]
    assert committed == [{"", "one"}]


def test_an_event_never_comes_without_its_change(store: Store) -> None:
    with pytest.raises(AssertionError, match=r"job\.done is recorded without the change"):
        store.events.add("job.done", job="aa")


def test_a_server_that_is_killed_leaves_both_or_neither(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.store.store import Store
from tests.unit.store.test_store import job

store = Store(ServerLayout(pathlib.Path({str(tmp_path)!r})))
store.jobs.add(job("aa", "one"))
store.jobs.add(job("bb", "one"))
store.jobs.change("aa", status=Status.PREPARING)
with store.database.transaction():
    store.jobs.change("bb", status=Status.PREPARING)
    os._exit(9)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[4], check=False)
    assert killed.returncode == 9

    store = Store(ServerLayout(tmp_path))

    assert [(each.id, each.status) for each in store.jobs.of("one")] == [
        ("aa", Status.PREPARING),
        ("bb", Status.QUEUED),
    ]
    assert [(event.kind, event.job) for event in store.events.select()] == [
        ("job.queued", "aa"),
        ("job.queued", "bb"),
        ("job.placed", "aa"),
    ]
    store.close()


def test_followers_wake_up_once_a_transaction_is_committed(store: Store) -> None:
    committed: list[tuple[set[str], bool]] = []
    store.database.committed = lambda changed: committed.append((changed, store.database.conn.in_transaction))

    with store.database.transaction():
        store.jobs.add(job("aa", "one"))
        store.jobs.add(job("bb", "two"))
    store.jobs.change("aa", warned=True)

    assert committed == [({"", "one", "two"}, False), ({"one"}, False)]


def test_filters(store: Store) -> None:
    for name in ("one", "two"):
        store.jobs.add(job(f"{name}-a", name))
        store.jobs.add(job(f"{name}-b", name, runner="lab1", status=Status.RUNNING))

    assert [event.id for event in store.events.select(2)] == [1, 2]
    assert [event.id for event in store.events.select(after=3)] == [4]
    assert [event.id for event in store.events.select(run="two")] == [3, 4]
    assert [event.id for event in store.events.select(job="one-b")] == [2]
    assert [event.id for event in store.events.select(runner="lab1", run="one")] == [2]
    assert store.events.select(since="2999-01-01T00:00:00.000Z") == []
    assert len(store.events.select(since="2000-01-01T00:00:00.000Z")) == 4
    assert [store.events.before_newest(count) for count in (0, 1, 4, 9)] == [4, 3, 0, 0]
    assert store.events.before_newest(1, run="one") == 1
    assert store.events.before_newest(0, run="three") == 0


def test_the_events_of_a_run_go_with_it_except_that_it_was_deleted(store: Store) -> None:
    store.runs.add(run("one"))
    store.jobs.add(job("aa", "one", status=Status.DONE))
    store.runs.add(run("two"))
    with acting("ann"):
        store.runs.hide("one")
    assert kinds(store, run="one") == ["run.submitted", "job.done", "run.deleted"]

    store.jobs.remove("aa")
    store.runs.remove("one")

    assert [(event.kind, event.actor) for event in store.events.select(run="one")] == [("run.deleted", "ann")]
    assert kinds(store, run="two") == ["run.submitted"]


def test_old_events_go_and_ids_still_grow(store: Store) -> None:
    for number in range(6):
        store.jobs.add(job(str(number), "one"))

    store.events.trim("2000-01-01T00:00:00.000Z", 4)
    assert [event.id for event in store.events.select()] == [3, 4, 5, 6]
    store.events.trim("2999-01-01T00:00:00.000Z", 4)
    assert [event.id for event in store.events.select()] == [6]
    store.jobs.add(job("new", "one"))

    assert last(store).id == 7
    assert msgspec.to_builtins(last(store))["data"]["workflow"] == "train"
