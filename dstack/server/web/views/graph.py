"""A picture of a run's jobs: which one needs which, in columns from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.model.job.job import Job

WIDTH, HEIGHT = 190, 46
"""Pixels of a job."""
ACROSS, DOWN = 56, 14
"""Pixels between two columns, and between two jobs of a column."""
LETTERS = 20
"""Characters of a name that fit."""
MOST = 60
"""More jobs than this are only listed."""


@dataclass(frozen=True)
class JobBox:
    """A job and where its top left corner is, in pixels."""

    job: Job
    x: int
    y: int
    name: str


@dataclass(frozen=True)
class Graph:
    """`edges` are SVG paths, from a job to one that needs it."""

    nodes: list[JobBox]
    edges: list[str]
    width: int
    height: int


def graph_of(jobs: Sequence[Job]) -> Graph | None:
    """Return the picture; None for one job alone, and for too many."""
    if not 1 < len(jobs) <= MOST:
        return None
    columns: dict[int, list[Job]] = {}
    for job, depth in depths(jobs).values():
        columns.setdefault(depth, []).append(job)
    nodes = {
        job.workflow: JobBox(job, depth * (WIDTH + ACROSS) + 1, at * (HEIGHT + DOWN) + 1, short(job.workflow))
        for depth, column in columns.items()
        for at, job in enumerate(column)
    }
    edges = [
        edge(nodes[name], nodes[job.workflow]) for job in jobs for name in job.definition.needs.names if name in nodes
    ]
    tallest = max(map(len, columns.values()))
    return Graph(
        list(nodes.values()),
        edges,
        len(columns) * (WIDTH + ACROSS) - ACROSS + 2,
        tallest * (HEIGHT + DOWN) - DOWN + 2,
    )


def depths(jobs: Sequence[Job]) -> dict[str, tuple[Job, int]]:
    """Return each job by its workflow, with the length of the longest way to it. Dependencies come first in `jobs`."""
    found: dict[str, tuple[Job, int]] = {}
    for job in jobs:
        above = [found[name][1] for name in job.definition.needs.names if name in found]
        found[job.workflow] = job, max(above, default=-1) + 1
    return found


def edge(one: JobBox, other: JobBox) -> str:
    """Return a curve from the right side of one job to the left side of the other."""
    x, y, to_x, to_y = one.x + WIDTH, one.y + HEIGHT // 2, other.x, other.y + HEIGHT // 2
    middle = (x + to_x) // 2
    return f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"


def short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
