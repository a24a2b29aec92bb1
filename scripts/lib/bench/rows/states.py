"""A server with very many runs, against the same with a thousand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import states
from measure import Way, finished
from table import Row
from world import World

from rows.start import HELLO

RUNS = 1_000_000


def homes(world: World) -> dict[str, Path]:
    """The homes of two servers, with very many runs and with a thousand."""
    found = {}
    for name, runs in (("many runs", world.size(RUNS, 5000)), ("1,000 runs", 1000)):
        home = world.work / f"home-{runs}"
        if not home.exists():
            states.make(home, runs)
        found[name] = home
    return found


def compared(world: World, *words: str, cold: bool = False) -> Mapping[str, Way]:
    """Run a command at both servers; `cold`: each time at one that has to start."""
    root = world.project("hello", HELLO.format(image=world.image))

    def at(home: Path) -> Way:
        command = ["env", f"DSTACK_HOME={home}", "dstack", *words]
        stop: Callable[[], object] | None = (lambda: stopped(home)) if cold else None
        return finished(command, root, stop)

    return {name: at(home) for name, home in homes(world).items()}


def stopped(home: Path) -> None:
    subprocess.run(
        ["dstack", "server", "stop"], env={**os.environ, "DSTACK_HOME": str(home)}, capture_output=True, check=False
    )


SAME = "the same with 1,000 runs"
ROWS = [
    Row("many-start", "10^6 runs: start of the server", SAME, "2", lambda world: compared(world, "runs", cold=True)),
    Row("many-list", "10^6 runs: dstack runs", SAME, "2", lambda world: compared(world, "runs")),
    Row("many-one", "10^6 runs: dstack runs RUN", SAME, "2", lambda world: compared(world, "runs", "run-777")),
    Row("many-status", "10^6 runs: --status", SAME, "2", lambda world: compared(world, "runs", "--status", "lost")),
    Row(
        "many-submit",
        "10^6 runs: run -d (queued)",
        SAME,
        "2",
        lambda world: compared(world, "run", "hello", "-d", "-q", "--wait-for-runner", "--runner", "nowhere"),
    ),
    Row(
        "many-prune",
        "10^6 runs: prune of the oldest 100",
        SAME,
        "-",
        lambda world: compared(world, "prune", "--dry-run", "--keep-last", "10"),
    ),
]
