"""`dstack logs`: print the log of a run or job."""

from __future__ import annotations

import re
from functools import partial

import click

from dstack.cli import connect
from dstack.cli.follow import Interrupts, stream
from dstack.cli.output import words
from dstack.cli.output.displays import JsonArray, JsonEvents, LogWriter
from dstack.cli.parameters import REF, json_option, name_of, run_or_job
from dstack.errors import UsageError
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event, RunView


@click.command("logs")
@click.argument("ref", metavar="RUN_OR_JOB", type=REF)
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the run or job ends.")
@click.option("--tail", type=click.IntRange(0, 10**9), metavar="N", help="Print only the last N lines of each job.")
@click.option(
    "--since", metavar="TIME", help="Print only what arrived in the last 10m or 2h, or since an RFC 3339 time."
)
@click.option("--timestamps", is_flag=True, help="Start each line with its time of arrival.")
@click.option("--grep", metavar="RE", help="Print only lines that match this regular expression.")
@click.option("--attempt", type=click.IntRange(1, 10**9), metavar="N", help="Print only attempt N; default: all.")
@json_option
def command(
    ref: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    timestamps: bool,
    grep: str | None,
    attempt: int | None,
    as_json: bool,
) -> None:
    """Print the log of a run or job.

    The log of one job is printed byte for byte. With several jobs, each line is prefixed with its workflow. Ctrl-C
    stops the printing, not the run. With -f, --json prints one object per line, and the last is the run.
    """
    if as_json and (tail is not None or timestamps or grep):
        raise UsageError("--json prints the complete log; leave out --tail, --timestamps and --grep")
    begin = words.since(since) if since else None
    pattern = _pattern(grep)
    client = connect.connect()
    target = run_or_job(client, ref)
    begins, ends = _bounds(target, attempt)
    names = [job.workflow for job in target.jobs] if isinstance(target, RunView) else []
    writer = LogWriter(names, timestamps=timestamps, pattern=pattern, tail=tail)
    display = writer if not as_json else JsonEvents() if follow else JsonArray()
    part = partial(_part, begin, ends)
    with Interrupts() as interrupts:
        if tail is not None or not follow:
            stream(client, name_of(target), display, interrupts, begins, follow=False, part=part)
            writer.release()
        if follow and stream(client, name_of(target), display, interrupts, begins, part=part) is None and as_json:
            display.run(client.run(target.run if isinstance(target, JobView) else target.name))
        display.close()


def _part(begin: str | None, ends: dict[str, int], event: Event, data: bytes) -> bytes:
    """Return the bytes that arrived from `begin` on (an RFC 3339 time) or have no time, and that lie before the job's
    offset in `ends` (bytes by job id)."""
    if begin and event.time and event.time < begin:
        return b""
    end = ends.get(event.id or "")
    return data if end is None else data[: max(0, end - (event.offset or 0))]


def _pattern(text: str | None) -> re.Pattern[bytes] | None:
    try:
        return re.compile(text.encode("utf-8", "surrogateescape")) if text else None
    except re.error as error:
        raise UsageError(f"--grep: '{text}' is not a regular expression: {error}") from error


def _bounds(target: RunView | JobView, attempt: int | None) -> tuple[dict[str, int], dict[str, int]]:
    """Return where the attempt begins in each job's log, and where it ends if it did, in bytes by job id. Raises
    UsageError if no job had that many attempts."""
    begins, ends = dict[str, int](), dict[str, int]()
    if attempt is None:
        return begins, ends
    jobs = target.jobs if isinstance(target, RunView) else [target]
    if all(job.attempt < attempt for job in jobs):
        raise UsageError(
            f"there is no attempt {attempt}", hint=f"the last attempt is {max(job.attempt for job in jobs)}"
        )
    for job in jobs:
        earlier = next((each for each in job.attempts if each.number == attempt), None)
        begins[job.id] = earlier.log_start if earlier else job.log_start
        if earlier or job.attempt < attempt:
            ends[job.id] = earlier.log_end if earlier else 0
    return begins, ends
