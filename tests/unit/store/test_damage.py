"""A damaged database: what can't be read is said, and one bad record stops nothing else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dstack.errors import StateDamagedError
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.store.store import Store
from tests.unit.store.test_store import job, run


@pytest.fixture
def layout(tmp_path: Path) -> ServerLayout:
    """The closed state of a server with two runs, one of them unfinished."""
    layout = ServerLayout(tmp_path)
    store = Store(layout)
    for name in ("one", "two"):
        store.runs.add(run(name))
        store.jobs.add(job(f"{name}1", name))
    store.jobs.change("two1", status=Status.DONE, exit_code=0)
    store.close()
    return layout


def flip(layout: ServerLayout, before: bytes, after: bytes) -> None:
    """Change bytes of the file, as a bad disk does."""
    content = layout.database.read_bytes()
    assert len(before) == len(after)
    assert before in content
    layout.database.write_bytes(content.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"id":"one1"', b'{{id":"one1"'),
        (b'{"id":"one1"', b'{"id":12.340'),
        (b'{"id":"one1"', b'{"id":"o\xffe1"'),
    ],
)
def test_a_bad_job_is_shown_and_stops_nothing(layout: ServerLayout, before: bytes, after: bytes) -> None:
    flip(layout, before, after)

    store = Store(layout)

    assert store.jobs.unfinished() == []
    assert store.jobs.aborted_on() == set()
    bad = store.jobs.require("one1")
    assert (bad.run, bad.status, bad.reason_code) == ("one", Status.LOST, ReasonCode.RECORD_DAMAGED)
    assert store.jobs.require("two1").status is Status.DONE
    assert [each.name for each in store.runs.newest(9)] == ["two", "one"]
    assert store.damaged.all() == ["job one1"]
    store.close()


def test_a_bad_run_ends_its_unfinished_jobs(layout: ServerLayout) -> None:
    flip(layout, b'{"name":"one","workflow"', b'{"name":"one"["workflow"')

    store = Store(layout)

    assert [each.name for each in store.runs.newest(9)] == ["two", "one"]
    assert store.jobs.require("one1").reason_code is ReasonCode.RECORD_DAMAGED
    assert store.jobs.unfinished() == []
    store.close()


def test_the_indexes_are_there_again(layout: ServerLayout) -> None:
    flip(layout, b'{"id":"one1"', b'{{id":"one1"')
    with sqlite3.connect(layout.database) as raw:
        before = raw.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()

    store = Store(layout)
    store.jobs.unfinished()

    after = store.database.rows("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name")
    assert [tuple(row) for row in after] == before
    store.close()


@pytest.mark.parametrize("at", [0, 4096])
def test_a_damaged_file_says_what_helps(layout: ServerLayout, at: int) -> None:
    content = bytearray(layout.database.read_bytes())
    content[at:] = b"\xa5" * (len(content) - at)
    layout.database.write_bytes(content)

    with pytest.raises(StateDamagedError) as met:
        Store(layout).jobs.unfinished()

    assert str(layout.database) in met.value.message
    assert "dstack server restore FILE" in (met.value.hint or "")
