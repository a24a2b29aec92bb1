"""What jobs used over time: a file a job, a line of JSON a sample."""

from __future__ import annotations

import msgspec

from dstack.model.metrics import Point
from dstack.model.paths import ServerLayout


class Metrics:
    """The samples of all jobs."""

    def __init__(self, layout: ServerLayout) -> None:
        self.layout = layout

    def append(self, job: str, point: Point) -> None:
        """Add a sample."""
        with self.layout.metrics(job).open("ab") as file:
            file.write(msgspec.json.encode(point) + b"\n")

    def read(self, job: str) -> list[Point]:
        """All samples of a job, in order. A line that a crash cut off is left out."""
        path = self.layout.metrics(job)
        if not path.exists():
            return []
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        return [msgspec.json.decode(line, type=Point) for line in whole.split(b"\n") if line]
