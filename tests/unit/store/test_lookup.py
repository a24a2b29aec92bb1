"""What a user means by the beginning of a name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import NotFoundError
from dstack.model.paths import ServerLayout
from dstack.store.lookup import job_named, jobs_named, run_named
from dstack.store.store import Store
from tests.unit.store.test_store import job, run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two runs; the ids of the jobs of the second begin with the name of the first."""
    opened = Store(ServerLayout(tmp_path))
    opened.runs.add(run("fade"))
    opened.jobs.add(job("0123456789ab", "fade"))
    opened.runs.add(run("brave-otter-7"))
    for number in range(2):
        opened.jobs.add(job(f"fade{number:08}", "brave-otter-7"))
    yield opened
    opened.close()


def meant(store: Store, ref: str) -> tuple[str, list[str], bool]:
    of, jobs, whole = jobs_named(store, ref)
    return of.name, [each.id for each in jobs], whole


def test_the_exact_name_of_a_run_wins_over_ids_that_begin_with_it(store: Store) -> None:
    assert meant(store, "fade") == ("fade", ["0123456789ab"], True)


def test_a_prefix_is_enough_if_it_is_of_one_thing(store: Store) -> None:
    assert meant(store, "brave") == ("brave-otter-7", ["fade00000000", "fade00000001"], True)
    assert meant(store, "fade00000001") == ("brave-otter-7", ["fade00000001"], False)
    assert meant(store, "01") == ("fade", ["0123456789ab"], False)
    assert run_named(store, "brave").name == "brave-otter-7"
    assert job_named(store, "0123").id == "0123456789ab"


@pytest.mark.parametrize("ref", ["fad", "fade0", ""])
def test_a_prefix_of_several_things_or_of_nothing_is_refused(store: Store, ref: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        jobs_named(store, ref)

    assert refused.value.code == ("ambiguous-name" if ref else "not-found")


@pytest.mark.parametrize(
    "ref",
    [
        "Brave",
        "BRAVE-OTTER-7",
        "brave%",
        "%",
        "_",
        "brave_otter-7",
        "bra*",
        "[b]",
        "0123456789AB",
        "\\",
        "brave-otter-78",
    ],
)
def test_letters_stand_for_themselves(store: Store, ref: str) -> None:
    for find in (jobs_named, run_named, job_named):
        with pytest.raises(NotFoundError, match=r"^no "):
            find(store, ref)


def test_runs_whose_names_differ_only_in_case(store: Store) -> None:
    store.runs.add(run("Brave"))
    store.runs.add(run("brav\U0010fffd"))

    assert run_named(store, "Br").name == "Brave"
    assert run_named(store, "brave").name == "brave-otter-7"
    assert run_named(store, "brav\U0010fffd").name == "brav\U0010fffd"


@pytest.mark.parametrize("ref", ["nope", ":nope"])
def test_what_nobody_named_is_not_found(store: Store, ref: str) -> None:
    for find in (jobs_named, run_named, job_named):
        with pytest.raises(NotFoundError):
            find(store, ref)
