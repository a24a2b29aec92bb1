"""One server for each home, also right after another one was killed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dstack.errors import ConflictError
from dstack.model.paths import ServerLayout
from dstack.server import lock
from dstack.server.lock import owned


@pytest.fixture
def layout(tmp_path: Path) -> ServerLayout:
    layout = ServerLayout(tmp_path)
    layout.state.mkdir()
    return layout


def test_a_server_that_runs_keeps_its_home(layout: ServerLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    with owned(layout), pytest.raises(ConflictError, match="another server is already running in"):
        owned(layout)


def test_a_server_that_was_killed_may_take_a_moment_to_release_it(
    layout: ServerLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server of which a thread still writes
    killed, tries = owned(layout), threading.Semaphore(0)
    locked = lock.locked
    monkeypatch.setattr(lock, "locked", lambda file: tries.release() or locked(file))

    # When another one starts, and the thread ends after it was refused twice
    def end() -> None:
        tries.acquire()
        tries.acquire()
        killed.close()

    thread = threading.Thread(target=end)
    thread.start()

    # Then it gets the home
    with owned(layout):
        thread.join()
