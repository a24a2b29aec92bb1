"""`dstack why`: why a run or job is where it is."""

from __future__ import annotations

from collections.abc import Iterator

import click

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.parameters import REF, json_option
from dstack.model.api.why import JobWhy

SHOWN = 10
"""How many changed inputs are listed."""


@click.command("why")
@click.argument("run_or_job", type=REF)
@json_option
def command(run_or_job: str, as_json: bool) -> None:
    """Say why a run or job waits, was cached, ran again or failed.

    For a job that waits, it says what is in the way on each runner, and what would change that.
    """
    found = connect.connect().why(run_or_job)
    if as_json:
        show.document(found)
        return
    show.line(f"{found.run}: {found.status.value}")
    for job in found.jobs:
        for text in lines(job):
            show.line(show.clean(text))


def lines(job: JobWhy) -> Iterator[str]:
    """Yield what is known about a job, the answer first."""
    code = f" ({job.reason_code})" if job.reason_code else ""
    ended = f", exit code {job.exit_code}" if job.exit_code else ""
    yield f"\n{job.workflow} ({job.job}): {job.status.value}{ended}{code}"
    if job.reason:
        yield f"  {job.reason}"
    yield f"  {'cached' if job.cache.hit else 'runs'}: {job.cache.why}"
    yield from changes(job)
    if job.placed:
        text = f": {job.placed.text}" if job.placed.text else ""
        yield f"  on {job.placed.runner}{text}"
    for each in job.runners:
        yield f"  {each.runner}: {each.text or 'nothing is in the way; it starts soon'}"
    if job.log:
        yield "  its last lines:"
        yield from (f"    {line}" for line in job.log.split("\n"))
    for advice in job.advice:
        yield f"  -> {advice.text}{f': {advice.command}' if advice.command else ''}"


def changes(job: JobWhy) -> Iterator[str]:
    if job.changes:
        yield f"  changed since {job.compared_with}:"
        yield from (f"    {change.text}" for change in job.changes[:SHOWN])
    if len(job.changes) > SHOWN:
        yield f"    and {len(job.changes) - SHOWN} more (--json lists them)"
