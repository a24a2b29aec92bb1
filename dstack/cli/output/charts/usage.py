"""Charts of the resources that jobs used over time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import asdict

from dstack.cli.output import show
from dstack.model.runner.metrics import JobMetrics, Point
from dstack.model.text.units import memory_words, rfc3339, took_words

BARS = "▁▂▃▄▅▆▇█"
WIDEST = 60


def print_metrics(jobs: list[JobMetrics], *, as_json: bool) -> None:
    """Print one chart per job and resource."""
    if as_json:
        show.document([{**asdict(job), "points": [_timed(point) for point in job.points]} for job in jobs])
        return
    for job in jobs:
        if not job.points:
            show.line(show.clean(f"{job.workflow}: no samples were taken"))
            continue
        span = took_words(job.points[-1].time - job.points[0].time)
        show.line(show.clean(f"{job.workflow} on {job.runner}, {span}:"))
        for title, values, text in _rows(job.points):
            show.line(f"  {title:<10} {chart(values)}  {text}")


def _timed(point: Point) -> dict[str, Any]:
    """Return a sample with its time as it is written everywhere else."""
    return {**asdict(point), "time": rfc3339(point.time)}


def _rows(points: list[Point]) -> Iterator[tuple[str, list[float], str]]:
    cpu = [point.cpu for point in points]
    yield "cpu", cpu, f"{_mean(cpu):.1f} on average, {max(cpu):.1f} peak"
    memory = [float(point.memory) for point in points]
    yield "memory", memory, f"{memory_words(_mean(memory))} on average, {memory_words(max(memory))} peak"
    if gpu := [point.gpu for point in points if point.gpu is not None]:
        yield "gpu", gpu, f"{_mean(gpu):.0f}% on average, {max(gpu):.0f}% peak"
    if held := [float(point.gpu_memory) for point in points if point.gpu_memory is not None]:
        yield "gpu memory", held, f"{memory_words(max(held))} peak"


def chart(values: Sequence[float], width: int | None = None) -> str:
    """One line of bars, scaled from zero to the largest value. Each bar is the average over its share of the time."""
    most = width or min(WIDEST, max(shutil.get_terminal_size().columns - 50, 10))
    count = min(len(values), most)
    top = max(values) or 1.0
    parts = [values[len(values) * i // count : len(values) * (i + 1) // count] for i in range(count)]
    return "".join(BARS[min(int(_mean(part) / top * len(BARS)), len(BARS) - 1)] for part in parts)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
