"""`dstack logs`: print the log of a run or job."""

from __future__ import annotations

import re

import click
import msgspec

from dstack.cli import connect
from dstack.cli.follow import Display, Interruption, Interrupts, stream
from dstack.cli.names import REF, run_or_job
from dstack.cli.options import json_option
from dstack.cli.output import show, words
from dstack.cli.output.json_events import JsonEvents, log_object
from dstack.cli.output.log_writer import LogWriter
from dstack.client.client import Client
from dstack.errors import UsageError
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event, RunView
from dstack.model.text.units import rfc3339

INTERRUPTED = 130


class Plain:
    """A display that prints only logs."""

    def __init__(self, writer: LogWriter) -> None:
        self.writer = writer
        self.log = writer.write
        self.finish = writer.finish

    def job(self, job: JobView) -> None:
        """Finish the log of a job that ended."""
        if job.status.finished:
            self.writer.finish(job.id, job.workflow)

    def run(self, run: RunView) -> None:
        """Print nothing: the logs have ended."""


class Since:
    """A display that shows only logs from `begin` (an RFC 3339 time) on."""

    def __init__(self, display: Display, begin: str | None) -> None:
        self._display = display
        self._begin = begin
        self.job = display.job
        self.finish = display.finish
        self.run = display.run

    def log(self, event: Event, data: bytes) -> None:
        """Pass on bytes that are new enough or have no time."""
        if self._begin is None or event.time is None or event.time >= self._begin:
            self._display.log(event, data)


class Part:
    """A display that shows each job's log only up to the offset in `ends` (bytes by job id)."""

    def __init__(self, display: Display, ends: dict[str, int]) -> None:
        self._display = display
        self._ends = ends
        self.job = display.job
        self.finish = display.finish
        self.run = display.run

    def log(self, event: Event, data: bytes) -> None:
        """Pass on the bytes before the end."""
        end = self._ends.get(event.id or "")
        kept = data if end is None else data[: max(0, end - (event.offset or 0))]
        if kept:
            self._display.log(event, kept)


class JsonArray:
    """A display that prints log events as one JSON array."""

    def __init__(self) -> None:
        self._any = False

    def log(self, event: Event, data: bytes) -> None:
        """Print an element of the array."""
        show.out().write(b",\n" if self._any else b"[\n")
        show.out().write(msgspec.json.encode(log_object(event, data, event.offset or 0)))
        self._any = True

    def close(self) -> None:
        """Print the end of the array."""
        show.write_json(b"\n]" if self._any else b"[]")

    def job(self, job: JobView) -> None:
        """Print nothing: only logs were asked for."""

    def finish(self, job: str, workflow: str) -> None:
        """Print nothing: bytes are printed as they were stored."""

    def run(self, run: RunView) -> None:
        """Print nothing: only logs were asked for."""


@click.command("logs")
@click.argument("ref", metavar="RUN_OR_JOB", type=REF)
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the run or job ends.")
@click.option("--tail", type=click.IntRange(0, 10**9), metavar="N", help="Print only the last N lines of each job.")
@click.option(
    "--since", metavar="TIME", help="Print only what arrived in the last 10m or 2h, or since an RFC 3339 time."
)
@click.option("--timestamps", is_flag=True, help="Start each line with its time of arrival.")
@click.option("--grep", metavar="RE", help="Print only lines that match this regular expression.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Print only attempt N; default: all.")
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
) -> int:
    """Print the log of a run or job.

    The log of one job is printed byte for byte. With several jobs, each line is prefixed with its workflow. Ctrl-C
    stops the printing, not the run. With -f, --json prints one object per line, and the last is the run.
    """
    if as_json and (tail is not None or timestamps or grep):
        raise UsageError("--json prints the complete log; leave out --tail, --timestamps and --grep")
    begin = rfc3339(words.since(since)) if since else None
    pattern = _pattern(grep)
    client = connect.connect()
    target = run_or_job(client, ref)
    begins, ends = _bounds(target, attempt)
    names = [job.workflow for job in target.jobs] if isinstance(target, RunView) else []
    writer = LogWriter(names if len(names) > 1 else (), timestamps=timestamps, pattern=pattern, since=begin, tail=tail)
    try:
        with Interrupts() as interrupts:
            name = target.name if isinstance(target, RunView) else target.id
            if as_json:
                return _json(client, name, target, follow, begin, interrupts, begins, ends)
            display = Part(Plain(writer), ends)
            return _plain(client, name, display, writer, interrupts, begins, follow=follow, tail=tail is not None)
    except Interruption:
        return INTERRUPTED


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


def _plain(
    client: Client,
    ref: str,
    display: Display,
    writer: LogWriter,
    interrupts: Interrupts,
    offsets: dict[str, int],
    *,
    follow: bool,
    tail: bool,
) -> int:
    if tail or not follow:
        stream(client, ref, display, interrupts, offsets, follow=False)
        writer.release()
    if follow:
        stream(client, ref, display, interrupts, offsets)
    writer.finish_all()
    return 0


def _json(
    client: Client,
    ref: str,
    target: RunView | JobView,
    follow: bool,
    since: str | None,
    interrupts: Interrupts,
    offsets: dict[str, int],
    ends: dict[str, int],
) -> int:
    if not follow:
        array = JsonArray()
        stream(client, ref, Part(Since(array, since), ends), interrupts, offsets, follow=False)
        array.close()
        return 0
    events = JsonEvents()
    if stream(client, ref, Part(Since(events, since), ends), interrupts, offsets) is None:
        events.run(client.run(target.run if isinstance(target, JobView) else target.name))
    return 0
