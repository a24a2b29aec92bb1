"""`dstack events`: print what happened, when, and who asked for it."""

from __future__ import annotations

from collections.abc import Callable

import click

from dstack.cli import connect
from dstack.cli.follow import Interruption, Interrupts
from dstack.cli.names import REF, RUNNER
from dstack.cli.output import show, words
from dstack.cli.output.event_rows import COLUMNS, row, text
from dstack.client.client import Client
from dstack.model.api import wire
from dstack.model.api.events import EventQuery, EventView
from dstack.model.text.units import rfc3339

INTERRUPTED = 130


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
) -> int:
    """Print what happened, when, and who asked for it.

    Events are about runs, jobs, runners, tags, secrets and settings. With --since, all events since then are printed.
    Ctrl-C stops the printing.
    """
    begin = rfc3339(words.since(since)) if since else None
    query = EventQuery(ref=ref, runner=runner, since=begin, limit=limit)
    client = connect.connect()
    if follow:
        return _follow(client, query, _write_json if as_json else _write_text)
    events = client.events(query)
    if as_json:
        show.document(events)
    elif not events:
        show.say("no events")
    else:
        show.table(COLUMNS, [row(event) for event in events])
    return 0


def _follow(client: Client, query: EventQuery, write: Callable[[EventView], None]) -> int:
    try:
        with Interrupts() as interrupts:
            for event in client.follow_events(query):
                with interrupts.held():
                    write(event)
    except Interruption:
        return INTERRUPTED
    return 0


def _write_json(event: EventView) -> None:
    show.write_json(wire.encode(event))


def _write_text(event: EventView) -> None:
    show.line(text(event))
