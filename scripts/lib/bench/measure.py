"""Measures ways to do the same thing in turns, so that a busy moment of the machine affects all of them."""

from __future__ import annotations

import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Way = Callable[[], float]
"""Does it once, and returns what it cost in the row's unit."""


class NotMeasuredError(Exception):
    """Says why a row can't be measured here."""


@dataclass(frozen=True)
class Cost:
    """What one way cost, over several rounds."""

    median: float
    least: float
    most: float


def in_turns(ways: Mapping[str, Way], rounds: int) -> dict[str, Cost]:
    """Take each way once to warm up, then all of them in turns: A B A B."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return {name: Cost(statistics.median(each), min(each), max(each)) for name, each in taken.items()}


def finished(command: Sequence[str | Path], cwd: Path | None = None, before: Callable[[], object] | None = None) -> Way:
    """A way that runs a command, and costs the seconds to its end. `before` does not count."""

    def run() -> float:
        if before is not None:
            before()
        start = time.perf_counter()
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return checked(command, done.returncode, done.stderr, time.perf_counter() - start)

    return run


def first_line(command: Sequence[str | Path], cwd: Path | None = None) -> Way:
    """A way that runs a command, and costs the seconds to its first line on stdout."""

    def run() -> float:
        start = time.perf_counter()
        with subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            seconds = time.perf_counter() - start
            _, said = process.communicate()
        return checked(command, process.returncode, said, seconds)

    return run


def checked(command: Sequence[str | Path], code: int, said: bytes, seconds: float) -> float:
    if code:
        line = shlex.join(map(str, command))
        raise NotMeasuredError(f"{line} exits with {code}: {said.decode(errors='replace').strip()[-500:]}")
    return seconds


def shell(script: str) -> list[str]:
    """The command that runs a script, for what a person would type in one line."""
    return ["sh", "-ec", script]
