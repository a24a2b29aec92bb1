"""Who may look into a job, and what is refused before anything reaches a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dstack.model.api.streams import UPGRADE
from dstack.server.border.upgrade import SCOPE
from tests.unit.server.world import JOB, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def asked(world: World, path: str, body: bytes = b"{}", *, token: str = "t", upgrade: bool = True) -> tuple[int, Any]:
    """Send a request whose connection could be upgraded. The world's transport is a test's, so nothing is."""
    app = world.app
    headers = [(b"upgrade", UPGRADE.encode())] if upgrade else []

    async def with_upgrade(scope: Any, receive: Any, send: Any) -> None:
        extra = {SCOPE: None} if upgrade else {}
        await app({**scope, **extra, "headers": [*scope["headers"], *headers]}, receive, send)

    world.app = with_upgrade
    try:
        return world.call("POST", path, body, token)
    finally:
        world.app = app


def test_a_proxy_that_drops_the_upgrade_is_named(world: World) -> None:
    for path in (f"/exec/{JOB}", f"/forward/{JOB}/80"):
        status, problem = asked(world, path, upgrade=False)

        assert status == 400
        assert "pass on the headers Upgrade and Connection" in problem["hint"]


def test_a_job_that_waits_says_what_to_type(world: World) -> None:
    status, problem = asked(world, "/exec/known")

    assert (status, problem["code"], problem["exit_code"]) == (409, "not-running", 125)
    assert problem["message"] == "train of known is not running: it is queued"
    assert problem["hint"] == "to see why: dstack why known"


def test_a_member_looks_into_own_runs_only(world: World) -> None:
    token = world.call("POST", "/tokens", {"name": "bob", "role": "member"})[1]["token"]

    for path in ("/exec/known", f"/forward/{JOB}/80"):
        status, problem = asked(world, path, token=token)

        assert (status, problem["code"]) == (403, "forbidden")
    assert asked(world, "/exec/known", token="wrong")[0] == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/forward/{JOB}/0", b""),
        (f"/forward/{JOB}/65536", b""),
        (f"/forward/{JOB}/http", b""),
        ("/exec/known", b'{"command": ["a\\u0000b"]}'),
        ("/exec/known", b'{"command": "ls"}'),
        ("/exec/known", b'{"terminal": {"columns": 80, "rows": 24, "term": "x; rm"}}'),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, path: str, body: bytes) -> None:
    assert asked(world, path, body)[0] == 400


def test_nothing_is_recorded_of_what_was_refused(world: World) -> None:
    asked(world, "/exec/known")

    assert not [event for event in world.store.events.select() if event.kind.startswith("exec.")]
