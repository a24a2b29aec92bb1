"""The server is killed at every named point of a run, and the run still happens exactly once."""

from __future__ import annotations

from tests.chaos.__main__ import main


def test_a_kill_at_each_point() -> None:
    assert main(["--points"]) == 0
