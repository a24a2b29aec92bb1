"""What a client may ask for has bounds: one request must not use up the server's memory, now or at each start."""

from __future__ import annotations

import msgspec
import pytest

from dstack.model.api import wire
from dstack.model.api.events import EventQuery
from dstack.model.api.retention import PruneCachesRequest, PruneRequest, PruneRestRequest
from dstack.model.api.runners import AddRunner
from dstack.model.api.runs import Event, Submission
from dstack.model.api.server import ServerConfig

GIVEN = {
    Event: {"event": "log"},
    Submission: {
        **{"workflow": "w", "workflows": [], "variables": {}, "user": "ann"},
        "snapshot": {"repo": "r", "tree": "t", "commit": None, "branch": None},
    },
}


@pytest.mark.parametrize("field", ["gpus", "max_jobs"])
@pytest.mark.parametrize("count", [-1, 10**7, 10**30])
def test_a_runner_with_absurdly_many_of_something_is_refused(field: str, count: int) -> None:
    body = f'{{"address": {{"host": "lab1"}}, "{field}": {count}}}'.encode()

    with pytest.raises(msgspec.ValidationError):
        wire.decode(body, AddRunner)


def test_a_runner_may_have_many_gpus() -> None:
    assert wire.decode(b'{"address": {"host": "lab1"}, "gpus": 1024}', AddRunner).gpus == 1024


@pytest.mark.parametrize(
    ("kind", "field", "counts"),
    [
        (PruneRequest, "keep_last", (-1, 2**63)),
        (PruneRequest, "older_than", (-1,)),
        (PruneRestRequest, "keep_last", (-1, 2**63)),
        (PruneCachesRequest, "unused_for", (-1,)),
        (ServerConfig, "max_gpus_per_user", (-2, 2**63)),
        (Submission, "gpus", (-1, 1025, 2**63)),
        (Submission, "priority", (-1, 101, 2**63)),
        (Submission, "timeout", (-1,)),
        (Event, "bytes", (-1,)),
        (Event, "offset", (-1,)),
    ],
)
def test_a_number_that_means_nothing_is_refused(
    kind: type[msgspec.Struct], field: str, counts: tuple[int, ...]
) -> None:
    for count in counts:
        with pytest.raises(msgspec.ValidationError, match=rf"Expected .* - at `\$\.{field}`"):
            msgspec.convert({**GIVEN.get(kind, {}), field: count}, kind)


@pytest.mark.parametrize("limit", ["-1", "99999999999999999999999"])
def test_a_limit_that_no_database_takes_is_refused(limit: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"limit": limit}, EventQuery, strict=False)
