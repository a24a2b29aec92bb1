"""Code and steps: a changed line, what is cached, the snapshot of a large tree."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from measure import Way, finished, shell
from table import Row
from world import World

from dstack.snapshot.take import take

JOB = "workflows:\n  - {{name: job, image: {image}, commands: ['wc -l src/7/7.py']}}\n"
STEPS = """workflows:
  - {{name: a, image: {image}, commands: [cat one > a], artifacts: [a], depends-on: {{repo: {{include: [one]}}}}}}
  - name: b
    image: {image}
    commands: [cat a two > b]
    artifacts: [b]
    depends-on: {{repo: {{include: [two]}}, workflows: [a]}}
  - {{name: c, image: {image}, commands: [cat b three], depends-on: {{repo: {{include: [three]}}, workflows: [b]}}}}
"""
DVC = """stages:
  a: {cmd: cat one > a, deps: [one], outs: [a]}
  b: {cmd: cat a two > b, deps: [a, two], outs: [b]}
  c: {cmd: cat b three > c, deps: [b, three], outs: [c]}
"""


class Line:
    """A file that gets one more line each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def add(self) -> None:
        self.count += 1
        with self.path.open("a") as file:
            file.write(f"one_more = {self.count}\n")


def changed(world: World) -> Mapping[str, Way]:
    root = world.project("code", JOB.format(image=world.image), world.size(5000, 300))
    runner = world.runner()
    line = Line(root / "src/7/7.py")
    there = world.work / "rsync"
    sent = ["rsync", "-az", "--delete", "--exclude", "/.git", "-e", shlex.join(world.ssh()), f"{root}/"]
    container = [*world.docker, "run", "--rm", "-v", f"{there}:/w", "-w", "/w", world.image, "wc", "-l", "src/7/7.py"]
    by_hand = f"{shlex.join([*sent, f'{world.user}@127.0.0.1:{there}/'])} && {shlex.join([*world.login(), *container])}"
    return {
        "dstack run": finished(["dstack", "run", "job", "--runner", runner], root, line.add),
        "rsync -az, then ssh HOST docker run": finished(shell(by_hand), root, line.add),
    }


def cached(world: World) -> Mapping[str, Way]:
    root = world.project("steps", STEPS.format(image=world.image))
    for name in ("one", "two", "three"):
        (root / name).write_text(f"{name}\n")
    line = Line(root / "three")
    ways = {"dstack run, in containers": finished(["dstack", "run", "c", "--runner", world.runner()], root, line.add)}
    dvc = world.rival("dvc")
    (root / "dvc.yaml").write_text(DVC)
    (root / ".gitignore").write_text("/a\n/b\n/c\n")
    finished([dvc, "init", "--quiet", "--force"], root)()
    return {**ways, "dvc repro, here, without containers": finished([dvc, "repro", "--quiet"], root, line.add)}


def large(world: World) -> Mapping[str, Way]:
    return snapshot(world.project("large", JOB.format(image=world.image), world.size(100_000, 1000)))


def snapshot(root: Path) -> Mapping[str, Way]:
    """Compare the snapshot of a tree, in which one file changes each time, with git's own look at it."""
    line = Line(root / "src/7/7.py")

    def taken() -> float:
        line.add()
        start = time.perf_counter()
        with take(root):
            return time.perf_counter() - start

    return {
        "the snapshot of dstack run": taken,
        "git status": finished(["git", "status", "--porcelain"], root, line.add),
    }


def bytes_sent(world: World) -> Mapping[str, Way]:
    """Count what a run of an unchanged tree sends and receives, with SSH's own bytes."""
    root = world.project("bytes", JOB.format(image=world.image).replace("wc -l src/7/7.py", "true"))
    runner = world.runner("far", world.far.port)

    def sent() -> float:
        before = world.far.count
        finished(["dstack", "run", "job", "--runner", runner], root)()
        return (world.far.count - before) / 1000

    return {"dstack run, nothing changed": sent}


ROWS = [
    Row("one-line", "one changed line of 5,000 files, a whole run", "rsync, then ssh docker run", "0.80", changed),
    Row("steps", "three steps, two of them cached", "dvc repro", "1.0", cached),
    Row("snapshot", "snapshot of 100,000 files, one changed", "git status", "1.2", large),
    Row("bytes", "bytes of a run, with its log and its end", "-", "-", bytes_sent, "kB"),
]
