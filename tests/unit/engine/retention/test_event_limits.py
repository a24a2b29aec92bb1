"""The event log is bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dstack.engine.retention import retention
from dstack.model.paths import ServerLayout
from dstack.store.store import Store


def test_the_oldest_events_go_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_EVENTS", 3)
    monkeypatch.setattr(retention, "EVENTS_LATER", 0.01)
    store = Store(ServerLayout(tmp_path))

    async def limited() -> None:
        task = asyncio.create_task(retention.limit_events(store))
        for number in range(10):
            store.settings.set("max-gpus-per-user", str(number))
            await asyncio.sleep(0)
        while len(store.events.select()) > 3:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(limited(), 10))

    assert [event.data["value"] for event in store.events.select()] == ["7", "8", "9"]
    store.close()
