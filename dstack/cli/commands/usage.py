"""`dstack usage`: GPU-hours and CPU-hours."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.parameters import json_option
from dstack.model.api.usage import KEYS, UsageView

TOTALS = ("GPU-HOURS", "CPU-HOURS", "WAITED", "JOBS", "ATTEMPTS")


@click.command("usage")
@click.option(
    "--since", metavar="TIME", default="30d", help="From this long ago (7d, 12h) or an RFC 3339 time; default: 30d."
)
@click.option(
    "--by",
    type=click.Choice(KEYS),
    multiple=True,
    default=("user",),
    help="What to add up by; repeatable; default: user. A week is named by its Monday.",
)
@json_option
def command(since: str, by: tuple[str, ...], as_json: bool) -> None:
    """Show GPU-hours, CPU-hours and waiting time.

    An hour counts while the job's commands run: for each GPU that the job has, and each CPU that it requests (one if it
    requests none). Runs that were deleted no longer count.
    """
    used = connect.connect().usage(words.since(since), by)
    if as_json:
        show.document(used)
    elif not used:
        show.say("nothing ran in that time")
    else:
        show.table([*(key.upper() for key in by), *TOTALS], [row(each, by) for each in used])


def row(used: UsageView, by: tuple[str, ...]) -> list[str]:
    hours = [f"{number:,.1f}" for number in (used.gpu_hours, used.cpu_hours, used.wait_hours)]
    return [*(getattr(used, key) or "-" for key in by), *hours, str(used.jobs), str(used.attempts)]
