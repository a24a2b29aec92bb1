"""How soon a runner is probed again after it failed, and who learns that it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dstack.engine.fleet import watch
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.watch import Watch
from dstack.errors import DstackError, HostUnreachableError
from dstack.hosts.pool import Pool
from dstack.model.paths import ServerLayout
from dstack.model.runner.runner import Address, Facts, Runner
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import steady, time_of_day
from dstack.store.store import Store

GONE = HostUnreachableError("it is gone")


class Answers(Fleet):
    """Runners that fail with what is in `failing`; `looks` has the moments at which each was probed. A probe of a
    runner in `slow` never ends."""

    failing: dict[str, DstackError]
    slow: set[str]
    looks: list[tuple[str, float]]

    async def look(self, runner: Runner, *, thorough: bool = False, anew: bool = False) -> tuple[Facts, float]:
        self.looks.append((runner.name, time.monotonic()))
        if runner.name in self.slow:
            await asyncio.Event().wait()
        if trouble := self.failing.get(runner.name):
            raise trouble
        return Facts(machine=runner.name), 0.0


def play(tmp_path: Path, scene: Callable[[Answers], object], *names: str) -> None:
    """Watch these runners while the scene is played."""

    async def played() -> None:
        with closing(Store(ServerLayout(tmp_path))) as store:
            for name in names:
                store.runners.add(Runner(name=name, address=Address(host=name)))
            fleet = Answers(store, Pool(), lambda: None)
            fleet.failing, fleet.slow, fleet.looks = {}, set(), []
            watching = Watch(fleet)
            watching.watched = store.runners.all  # type: ignore[method-assign]
            task = asyncio.create_task(watching.run())
            try:
                await asyncio.wait_for(scene(fleet), 60)  # type: ignore[arg-type]
            finally:
                for each in (task, *fleet.tasks.running, *fleet.probes.values()):
                    each.cancel()
                await asyncio.gather(task, *fleet.tasks.running, return_exceptions=True)

    asyncio.run(played())


async def become(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("trouble", [GONE, DstackError("Docker is not running")])
def test_a_runner_that_is_back_soon_is_ready_soon(tmp_path: Path, trouble: DstackError) -> None:
    async def scene(fleet: Answers) -> None:
        # Given a runner that fails
        fleet.failing["lab"] = trouble
        fleet.recheck("lab")
        await become(lambda: "lab" in fleet.conditions and not fleet.ready("lab"))

        # When it is back after two seconds
        await asyncio.sleep(2)
        del fleet.failing["lab"]
        back = time.monotonic()

        # Then it is ready a few seconds later
        await become(lambda: fleet.ready("lab"))
        assert time.monotonic() - back < 5

    play(tmp_path, scene, "lab")


def test_a_runner_that_does_not_answer_delays_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch, "SHORTEST_PAUSE", 0.01)

    async def scene(fleet: Answers) -> None:
        fleet.slow.add("mute")
        fleet.failing["lab"] = GONE
        fleet.recheck("lab")

        await become(lambda: [name for name, _ in fleet.looks].count("lab") > 4)

        assert [name for name, _ in fleet.looks].count("mute") == 1

    play(tmp_path, scene, "mute", "lab")


def test_who_waits_for_a_runner_learns_at_once_that_it_is_back(tmp_path: Path) -> None:
    async def scene(fleet: Answers) -> None:
        # Given a runner that was ready, and has just stopped answering a job
        await become(lambda: fleet.ready("lab"))
        fleet.failing["lab"] = GONE
        waiting = asyncio.create_task(fleet.back("lab", 1000, hurry=True))
        await become(lambda: not fleet.ready("lab"))
        assert not waiting.done()

        # When it answers again
        del fleet.failing["lab"]

        # Then the job does not wait for the end of its pause
        await waiting

    play(tmp_path, scene, "lab")


def test_a_runner_that_answers_all_along_wakes_nobody_early(tmp_path: Path) -> None:
    async def scene(fleet: Answers) -> None:
        await become(lambda: fleet.ready("lab"))
        begun = time.monotonic()

        await fleet.back("lab", 0.5, hurry=True)

        assert time.monotonic() - begun >= 0.5
        assert len(fleet.looks) == 2

    play(tmp_path, scene, "lab")


@pytest.mark.parametrize("turns", range(6))
def test_watching_ends_when_it_is_cancelled_just_as_something_happens(tmp_path: Path, turns: int) -> None:
    """Before Python 3.12, `asyncio.wait_for` returns instead, and the server does not stop."""

    async def watched(store: Store) -> bool:
        fleet = Answers(store, Pool(), lambda: None)
        task = asyncio.create_task(Watch(fleet).run())
        await asyncio.sleep(0.01)
        fleet.wake.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        return task in done

    with closing(Store(ServerLayout(tmp_path))) as store:
        assert asyncio.run(watched(store))


def test_an_unreachable_runner_says_since_when(tmp_path: Path) -> None:
    async def scene(fleet: Answers) -> None:
        fleet.failing["lab"] = GONE
        before = steady()
        fleet.recheck("lab")
        await become(lambda: "lab" in fleet.conditions and fleet.conditions["lab"].failures > 1)

        found = fleet.conditions["lab"]

        assert found.silent_since is not None
        assert before - 60 < found.silent_since <= steady()
        assert found.reason == f"no answer since {rfc3339(time_of_day(found.silent_since))}: it is gone"

    play(tmp_path, scene, "lab")
