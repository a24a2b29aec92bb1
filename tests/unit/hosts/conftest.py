from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60
"""What no test needs: a hang ends here."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without .ssh and without an agent."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine, and check that it leaves no task, no open file and no process behind."""

    async def scene_and_check() -> None:
        before = open_files()
        await asyncio.wait_for(scene(), SECONDS)
        await become(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "only this task is left")
        await become(lambda: open_files() <= before, "all files are closed")
        await become(lambda: not waiting_threads(), "all processes have ended")
        await asyncio.sleep(0)  # what those threads left to the loop

    asyncio.run(scene_and_check())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def waiting_threads() -> list[threading.Thread]:
    """Return asyncio's threads: one per process that has not ended."""
    return [thread for thread in threading.enumerate() if "waitpid" in thread.name]


async def become(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.01)
