"""The resource usage of jobs over time: one file per job, one line of JSON per sample."""

from __future__ import annotations

import msgspec

from dstack.model.paths import ServerLayout
from dstack.model.runner.metrics import Point


class UsageLogs:
    """The samples of all jobs."""

    def __init__(self, layout: ServerLayout) -> None:
        self.layout = layout

    def append(self, job: str, point: Point) -> None:
        """Add a sample."""
        with self.layout.metrics(job).open("ab") as file:
            file.write(msgspec.json.encode(point) + b"\n")

    def read(self, job: str) -> list[Point]:
        """Return all samples of a job, in order. An incomplete last line, left by a crash, is skipped."""
        path = self.layout.metrics(job)
        if not path.exists():
            return []
        complete, _, _ = path.read_bytes().rpartition(b"\n")
        return [msgspec.json.decode(line, type=Point) for line in complete.split(b"\n") if line]
