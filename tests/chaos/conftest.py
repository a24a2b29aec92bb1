"""The world that all chaos tests of a session share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.world import World


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    world = World()
    try:
        yield world
    finally:
        world.close()
