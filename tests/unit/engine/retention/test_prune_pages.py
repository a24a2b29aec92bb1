"""What `prune` would remove, in pages."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dstack.engine.retention import retention
from dstack.engine.retention.retention import Retention
from dstack.model.api.artifacts import TagView
from dstack.model.api.retention import Removed
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.text.units import rfc3339
from dstack.store.store import Store
from tests.unit.store.test_store import job, run

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A state of several pages: a run a day, some unfinished, tagged, or with a result that the next one uses."""
    monkeypatch.setattr(retention, "PAGE", 7)
    monkeypatch.setattr(retention.time, "time", lambda: NOW)
    opened = Store(ServerLayout(tmp_path))
    dice = random.Random(1)
    for number in range(60):
        name, ended = f"run-{number:02}", rfc3339(NOW - (60 - number) * DAY)
        opened.runs.add(run(name, repo=dice.choice("ab")))
        status = dice.choice([Status.DONE, Status.FAILED, Status.RUNNING])
        source = f"j{number - 1}" if number % 5 == 1 else None
        finished = ended if status.finished else None
        opened.jobs.add(job(f"j{number}", name, status=status, finished_at=finished, bytes=10, cached_from=source))
        if number % 9 == 0:
            opened.tags.set(TagView(name=f"t{number}", run=name, job=f"j{number}", workflow="train", created_at=ended))
    yield opened
    opened.close()


def expected(store: Store, keep_last: int | None, older_than: float | None) -> list[str]:
    """The rule, read from the records one by one."""
    seen: Counter[str] = Counter()
    tagged = {tag.run for tag in store.tags.all()}
    found = []
    for each in store.runs.newest(-1):
        (own,) = store.jobs.of(each.name)
        seen[each.snapshot.repo] += 1
        old = own.finished and own.finished_at <= rfc3339(NOW - (older_than or 0))
        if old and seen[each.snapshot.repo] > (keep_last or 0) and each.name not in tagged:
            found.append(each.name)
    return found[::-1]


def asked(store: Store, retain: Retention, keep_last: int | None, older_than: float | None) -> list[str]:
    return asyncio.run(retain.prunable(keep_last, older_than))


@pytest.mark.parametrize(("keep_last", "older_than"), [(3, None), (0, None), (None, 20 * DAY), (5, 40 * DAY)])
def test_a_rule_removes_the_same_runs_over_any_number_of_pages(
    store: Store, keep_last: int | None, older_than: float | None
) -> None:
    found = asked(store, Retention(SimpleNamespace(store=store)), keep_last, older_than)  # type: ignore[arg-type]

    assert found == expected(store, keep_last, older_than)
    assert len(found) > 7


def test_a_page_says_what_becomes_free_given_all_that_goes(store: Store) -> None:
    # Given a rule that removes runs of several pages
    retain = Retention(SimpleNamespace(store=store))  # type: ignore[arg-type]
    going = asked(store, retain, 3, None)

    async def read() -> list[Removed]:
        return [each async for page in retain.pages(going) for each in page]

    # Then what only runs that go use becomes free, on whatever page these are
    told = asyncio.run(read())
    used = {
        own.cached_from for each in store.runs.newest(-1) for own in store.jobs.of(each.name) if each.name not in going
    }
    own = {each.name: job for each in store.runs.several(going) for job in store.jobs.of(each.name)}
    assert [each.run for each in told] == going
    for each in told:
        kept = own[each.run].id in used
        assert each.kept == (["train"] if kept else [])
        assert each.bytes == (0 if kept or own[each.run].cached_from else 10)
    assert any(each.kept for each in told)


def test_statements_grow_with_pages_and_not_with_runs(store: Store) -> None:
    statements: list[str] = []
    retain = Retention(SimpleNamespace(store=store))  # type: ignore[arg-type]
    store.jobs.current()
    store.database.conn.set_trace_callback(statements.append)
    asked(store, retain, 3, 10 * DAY)
    store.database.conn.set_trace_callback(None)

    pages = 60 // 7 + 2
    assert len([sql for sql in statements if sql.startswith("SELECT")]) <= 2 * pages + 1
