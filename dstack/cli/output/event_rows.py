"""Events as lines of text."""

from __future__ import annotations

from typing import Any

from dstack.cli.output import show
from dstack.model.api.events import EventView

COLUMNS = ("TIME", "EVENT", "SUBJECT", "BY", "DETAILS")
WIDTHS = (24, 18, 24, 8, 0)
"""Of a line that is printed before those that follow are known."""


def row(event: EventView) -> tuple[str, ...]:
    """Return the event's columns."""
    workflow = event.data.get("workflow") if event.job else None
    subject = f"{event.run}/{workflow}" if workflow else event.run or event.runner or "-"
    return event.time, event.kind, subject, event.actor, ", ".join(_details(event))


def text(event: EventView) -> str:
    """Return the event as one line."""
    cells = (show.clean(cell).replace("\n", " ") for cell in row(event))
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _details(event: EventView) -> list[str]:
    data: dict[str, Any] = event.data
    named, previous = data.get("name"), data.get("previous")
    gpus = data.get("gpus", ())
    details = (
        f"on {event.runner}" if event.run and event.runner else None,
        f"GPU {' '.join(map(str, gpus))}" if gpus else None,
        f"attempt {data['attempt']}" if data.get("attempt", 1) > 1 else None,
        f"previous attempt: {previous['status']}, {previous['reason'] or previous['exit_code']}" if previous else None,
        f"exit code {data['exit_code']}" if data.get("exit_code") else None,
        f"result of job {data['cached_from']}" if "cached_from" in data else None,
        f"{named}: {data['value'] or 'not set'}" if "value" in data else named,
        f"changed: {' '.join(data['changed'])}" if "changed" in data else None,
        data.get("address"),
        data.get("phase") if event.kind == "job.preparing" else None,
        data.get("reason"),
    )
    return [detail for detail in details if detail]
