"""`dstack logs`: print the log of a run or job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import click

from dstack.cli import connect
from dstack.cli.follow import Interrupts, frames_of, stream
from dstack.cli.output import show, words
from dstack.cli.output.displays import JsonArray, JsonEvents
from dstack.cli.output.log_writer import LogWriter
from dstack.cli.output.progress import LogLines, state
from dstack.cli.parameters import REF, json_option, name_of, run_or_job
from dstack.client.client import Client
from dstack.errors import ErrorCode, NotFoundError, UsageError
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event, RunView
from dstack.model.text.suggest import did_you_mean, nearest


@click.command("logs")
@click.argument("refs", metavar="RUN_OR_JOB [RUN_OR_JOB | WORKFLOW]...", nargs=-1, required=True, type=REF)
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
    refs: tuple[str, ...],
    follow: bool,
    tail: int | None,
    since: str | None,
    timestamps: bool,
    grep: str | None,
    attempt: int | None,
    as_json: bool,
) -> None:
    """Print the logs of runs and jobs.

    A WORKFLOW after a run means its job in that run. The log of one job is printed byte for byte. With several jobs,
    each line is prefixed with its workflow, and also with its run if there are several. Ctrl-C stops the printing, not
    the run. With -f, a job that has not begun says on stderr why it waits, and --json prints one object per line; the
    last is the run.
    """
    if as_json and (tail is not None or timestamps or grep):
        raise UsageError("--json prints the complete log; leave out --tail, --timestamps and --grep")
    begin = words.since(since) if since else None
    pattern = _pattern(grep)
    client = connect.connect()
    targets = _targets(client, refs)
    jobs = [job for each in targets for job in (each.jobs if isinstance(each, RunView) else [each])]
    begins, ends = _bounds(jobs, attempt)
    labels = _labels(jobs)
    writer = LogWriter(labels, timestamps=timestamps, pattern=pattern, tail=tail)
    names = [name_of(target) for target in targets]
    part = partial(_part, begin, ends)
    with Interrupts() as interrupts:
        if tail is not None or not follow:
            stored = JsonArray() if as_json else writer
            # An attempt's last lines, and the last that match, are found by reading.
            last = tail if attempt is None and pattern is None else None
            frames = frames_of(client, names, begins, follow=False, tail=last, since=begin)
            stream(frames, stored, interrupts, begins, part=part)
            writer.release()
            if not follow:
                stored.close()
        if follow:
            display = JsonEvents() if as_json else LogLines(jobs, writer, labels)
            stream(frames_of(client, names, begins, since=begin), display, interrupts, begins, part=part)
            if as_json:
                for name in dict.fromkeys(target.run for target in targets if isinstance(target, JobView)):
                    display.run(client.run(name))
            display.close()
    if not begins and not as_json:
        for job in jobs:
            show.say(f"{labels[job.id]}: no output: {state(client.job(job.id))}")


def _targets(client: Client, refs: Sequence[str]) -> list[RunView | JobView]:
    """Return the runs and jobs that the words mean. A workflow of the run before it means its job there."""
    targets = dict[str, RunView | JobView]()
    run: RunView | None = None
    for ref in refs:
        job = next((job for job in run.jobs if job.workflow == ref), None) if run else None
        if run and job:
            targets.pop(run.name, None)
            targets[job.id] = job
            continue
        target = _target(client, ref, run)
        run = target if isinstance(target, RunView) else run
        targets[name_of(target)] = target
    return [each for each in targets.values() if isinstance(each, RunView) or each.run not in targets]


def _target(client: Client, ref: str, run: RunView | None) -> RunView | JobView:
    try:
        return run_or_job(client, ref)
    except NotFoundError as error:
        if run is None or error.code == ErrorCode.AMBIGUOUS:
            raise
        names = [job.workflow for job in run.jobs]
        meant = nearest(ref, names)
        raise NotFoundError(
            f"'{ref}' is not a workflow of {run.name}, nor a run or job{did_you_mean(ref, names)}",
            hint=f"dstack logs {run.name} {meant}" if meant else f"`dstack jobs {run.name}` lists its workflows",
        ) from error


def _labels(jobs: Sequence[JobView]) -> dict[str, str]:
    """Return what each job's lines are prefixed with, by job id."""
    several = len({job.run for job in jobs}) > 1
    return {job.id: f"{job.run}/{job.workflow}" if several else job.workflow for job in jobs}


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


def _bounds(jobs: Sequence[JobView], attempt: int | None) -> tuple[dict[str, int], dict[str, int]]:
    """Return where the attempt begins in each job's log, and where it ends if it did, in bytes by job id. Raises
    UsageError if no job had that many attempts."""
    begins, ends = dict[str, int](), dict[str, int]()
    if attempt is None:
        return begins, ends
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
