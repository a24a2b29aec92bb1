"""How long each job of a run spent in each phase, to scale."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from dstack.model.api.events import EventView
from dstack.model.job.job import Job
from dstack.model.text.units import rfc3339, seconds

WIDTH = 1000
"""Units of the picture's width, which is stretched to the page's."""
THINNEST = 2.0
MOST = 60
"""Most jobs in the picture."""


@dataclass(frozen=True)
class Bar:
    """A phase of a job: where it lies in the picture, and how long it took in seconds."""

    phase: str
    x: float
    width: float
    took: float
    begin: str


@dataclass(frozen=True)
class Timeline:
    """The bars of each job, and the moments where the picture begins and ends (RFC 3339)."""

    rows: list[tuple[Job, list[Bar]]]
    begin: str
    end: str
    took: float


def timeline_of(jobs: Sequence[Job], events: Sequence[EventView]) -> Timeline | None:
    """Return the picture, given the run's events; None if nothing of it is known."""
    shown = [job for job in jobs if job.cached_from is None][:MOST]
    by_job: dict[str, list[EventView]] = {}
    for event in events:
        if event.job is not None:
            by_job.setdefault(event.job, []).append(event)
    known = [(job, spans(job, by_job.get(job.id, []))) for job in shown]
    times = [moment for _, found in known for _, begin, end in found for moment in (begin, end)]
    if not times or max(times) <= min(times):
        return None
    first, last = min(times), max(times)
    scale = WIDTH / (last - first)
    rows = [(job, [bar(phase, begin, end, first, scale) for phase, begin, end in found]) for job, found in known]
    return Timeline(rows, rfc3339(first), rfc3339(last), last - first)


def spans(job: Job, events: Sequence[EventView]) -> list[tuple[str, float, float]]:
    """Return the phases of a job, each with its begin and end in seconds since the epoch."""
    marks = [(str(event.data["phase"]), seconds(event.time)) for event in events if "phase" in event.data]
    end = seconds(job.finished_at) if job.finished_at else time.time()
    found: list[tuple[str, float, float]] = []
    for (phase, begin), after in zip(marks, [*(at for _, at in marks[1:]), end], strict=False):
        if phase == "ended":
            continue
        if found and found[-1][0] == phase:
            found[-1] = (phase, found[-1][1], after)
        else:
            found.append((phase, begin, after))
    return found


def bar(phase: str, begin: float, end: float, first: float, scale: float) -> Bar:
    width = max((end - begin) * scale, THINNEST)
    return Bar(phase, round((begin - first) * scale, 1), round(width, 1), end - begin, rfc3339(begin))
