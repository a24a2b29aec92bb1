"""`dstack events`: print what happened, when, and who asked for it."""

from __future__ import annotations

from typing import Any

import click

from dstack.cli import connect
from dstack.cli.follow import Interrupts
from dstack.cli.output import show, words
from dstack.cli.parameters import REF, RUNNER
from dstack.model.api import wire
from dstack.model.api.events import EventQuery, EventView

COLUMNS = ("TIME", "EVENT", "SUBJECT", "BY", "DETAILS")
WIDTHS = (24, 18, 24, 8, 0)
"""Of a line that is printed before those that follow are known."""


@click.command("events")
@click.argument("ref", metavar="[RUN_OR_JOB]", required=False, type=REF)
@click.option("--runner", metavar="NAME", type=RUNNER, help="Print only events of this runner.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new events; of a run or job, until it ends.")
@click.option(
    "--since", metavar="TIME", help="Print only what happened in the last 10m or 2h, or since an RFC 3339 time."
)
@click.option(
    "-n",
    "limit",
    type=click.IntRange(0, 10**9),
    metavar="N",
    help="Print only the last N events; without --since, the default is 100.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with -f, one object per line.")
def command(
    ref: str | None, runner: str | None, follow: bool, since: str | None, limit: int | None, as_json: bool
) -> None:
    """Print what happened, when, and who asked for it.

    Events are about runs, jobs, runners, tags, secrets and settings. With --since, all events since then are printed.
    Ctrl-C stops the printing.
    """
    begin = words.since(since) if since else None
    query = EventQuery(ref=ref, runner=runner, since=begin, limit=limit)
    client = connect.connect()
    if not follow:
        show.list_table(client.events(query), COLUMNS, _row, "no events", as_json=as_json)
        return
    with Interrupts() as interrupts:
        for event in client.follow_events(query):
            with interrupts.held():
                if as_json:
                    show.write_json(wire.encode(event))
                else:
                    show.line(_text(event))


def _row(event: EventView) -> tuple[str, ...]:
    workflow = event.data.get("workflow") if event.job else None
    subject = f"{event.run}/{workflow}" if workflow else event.run or event.runner or event.data.get("sweep", "-")
    return event.time, event.kind, subject, event.actor, ", ".join(_details(event))


def _text(event: EventView) -> str:
    cells = (show.clean(cell).replace("\n", " ") for cell in _row(event))
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
    return [words.local(detail) for detail in details if detail]
