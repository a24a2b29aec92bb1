"""Prints the progress of a run on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from dstack.cli.follow import exit_code
from dstack.cli.output import show, words
from dstack.cli.output.displays import Display
from dstack.cli.output.log_writer import LogWriter
from dstack.cli.output.screen import SCREEN, terminal
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event, RunView
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Phase, Progress, Status
from dstack.model.text.units import size_words

SPARSE = 30.0
"""Seconds between two lines about the same transfer, when there is no status line."""


def state(job: JobView) -> str:
    """Describe the state of a job in a few words."""
    where = f" on {job.runner}" if job.runner and not job.status.finished else ""
    if job.cached:
        return f"cached: {job.cache.why}"
    if job.status is Status.DONE:
        files, size = job.artifacts.files, size_words(job.artifacts.bytes)
        made = f", {words.count(files, 'file')}, {size}" if files else ""
        return f"done in {words.took(job.started_at or job.submitted_at, job.finished_at)}{made}"
    if job.status is Status.FAILED:
        text = "failed" if job.exit_code is None else f"failed with exit code {job.exit_code}"
    elif job.status is Status.UPLOADING:
        text = f"{'uploading artifacts' if job.progress else 'finishing'}{where}"
    elif job.status is Status.QUEUED:
        text = "queued"
    else:
        gpus = f" with GPU {','.join(map(str, job.gpus))}" if job.gpus and where else ""
        text = f"{job.status.value}{where}{gpus}"
    return f"{text}: {words.local(job.reason)}" if job.reason else text


WAITING = ReasonCode.WAITING_FOR_DEPENDENCY


class ProgressLines(Display):
    """Prints each change once. Passes logs, except those of cached jobs, to `writer` (None: prints no logs)."""

    def __init__(
        self, jobs: Sequence[JobView], writer: LogWriter | None, *, named: str = "", quiet: bool = False
    ) -> None:
        self._jobs = {job.id: job for job in jobs}
        self._named = named
        self._printed: dict[str, str] = {}
        self._told: set[str | None] = set()
        self._writer = writer
        self._quiet = quiet
        self._transfers: dict[str, float] = {}

    def begin(self) -> None:
        """Print what will happen and why: on a terminal as a table, else one line for each dependency."""
        table = len(self._jobs) > 1 and terminal(sys.stderr)
        if table and not self._quiet:
            self._print_plan()
        for job in list(self._jobs.values()):
            if not (table or self._quiet or job.cached or job.workflow == self._named):
                show.say(f"{job.workflow}: will run: {job.cache.why}")
            self.job(job)

    def _print_plan(self) -> None:
        rows = [(job.workflow, "cached" if job.cached else "run", job.cache.why) for job in self._jobs.values()]
        for text in show.table_lines(("WORKFLOW", "PLAN", "WHY"), rows, sys.stderr):
            show.raw_line(text)
        self._printed |= {job.id: state(job) for job in self._jobs.values() if job.cached}

    def job(self, job: JobView) -> None:
        """Print a job's state, if it changed."""
        self._jobs[job.id] = job
        if not self._quiet:
            self._show_status()
        text = self.news(job)
        if text and self._printed.get(job.id) != text and not self._only_further(job):
            self._printed[job.id] = text
            if job.status.finished:
                self.finish(job.id, job.workflow)
            if not self._quiet:
                self._told.add(f"{job.workflow}: {job.reason}")
                style = show.STYLES.get(job.status.value) if job.status.finished else None
                show.say(f"{self.label(job)}: {text}", style=style)

    def label(self, job: JobView) -> str:
        return job.workflow

    def news(self, job: JobView) -> str:
        """Return the state of a job if it is worth a line. Waiting for another job that is shown is not."""
        if job.status is Status.QUEUED and (job.reason is None or (job.reason_code == WAITING and len(self._jobs) > 1)):
            return ""
        if job.status is Status.UPLOADING and job.progress is None and job.reason is None:
            return ""
        return state(job)

    def _only_further(self, job: JobView) -> bool:
        """Whether only a transfer has progressed, or the container is about to start. The status line shows that; a
        transfer has a line every SPARSE seconds if there is no status line."""
        if job.phase is Phase.STARTING and job.reason is None:
            return True
        if job.reason_code not in (ReasonCode.PULLING_IMAGE, ReasonCode.UPLOADING):
            return False
        now, last = time.monotonic(), self._transfers.get(job.id)
        if last is None or (now - last >= SPARSE and not terminal(sys.stderr)):
            self._transfers[job.id] = now
            return False
        return True

    def log(self, event: Event, data: bytes) -> None:
        known = self._jobs.get(event.id or "")
        if self._writer and not (known and known.cached):
            self._writer.log(event, data)

    def finish(self, job: str, workflow: str) -> None:
        if self._writer:
            self._writer.finish(job, workflow)

    def run(self, run: RunView) -> None:
        """Print how the run ended, and what to type next. Even a quiet command says why it failed."""
        for job in run.jobs:
            self.job(job)
        self.close()
        if not self._quiet or exit_code(run):
            show.say(self._ending(run), style=show.STYLES.get(run.status.value))
            show.say(f"next: dstack {self._next(run)} {run.name}")

    def _ending(self, run: RunView) -> str:
        took = words.took(run.submitted_at, run.finished_at)
        if run.status is Status.DONE:
            return f"{run.name}: done in {took}"
        text = f"{run.name}: {run.status.value} after {took}, exit code {exit_code(run)}"
        if not run.reason:
            return text
        if run.reason not in self._told:
            return f"{text}: {words.local(run.reason.splitlines()[0])}"
        return text if len(run.jobs) == 1 else f"{text}, because of {run.reason.partition(':')[0]}"

    def _next(self, run: RunView) -> str:
        """Return the command that shows most about the run."""
        if run.status is Status.DONE and any(job.artifacts.files for job in run.jobs):
            return "artifacts list"
        began = any(job.started_at and not job.cached for job in run.jobs)
        return "logs" if (self._writer.any if self._writer else began) else "runs"

    def close(self) -> None:
        """Remove the status line."""
        SCREEN.close()

    def _show_status(self) -> None:
        unfinished = [job for job in self._jobs.values() if not job.status.finished]
        busy = [job for job in unfinished if job.status is not Status.RUNNING]
        if len(busy) < len(unfinished) and (self._writer is None or self._writer.raw):
            busy = []
        idle = [job for job in busy if job.status is Status.QUEUED and job.reason_code in (None, WAITING)]
        parts = [f"{self.label(job)}: {_doing(job)}" for job in busy if job not in idle]
        if len(idle) == 1 and not parts:
            parts = [f"{self.label(idle[0])}: queued"]
        elif idle:
            parts.append(f"{len(idle)} waiting")
        SCREEN.status(show.clean(" · ".join(parts)).replace("\n", " "))


class LogLines(ProgressLines):
    """Prints logs, with the jobs' `labels` (by id), and of what happens only why jobs wait that have not begun."""

    def __init__(self, jobs: Sequence[JobView], writer: LogWriter, labels: Mapping[str, str]) -> None:
        super().__init__(jobs, writer)
        self._logs, self._labels = writer, labels

    def label(self, job: JobView) -> str:
        return self._labels.get(job.id, job.workflow)

    def news(self, job: JobView) -> str:
        return super().news(job) if job.status in (Status.QUEUED, Status.PREPARING) else ""

    def job(self, job: JobView) -> None:
        super().job(job)
        self._logs.job(job)

    def log(self, event: Event, data: bytes) -> None:
        self._logs.log(event, data)

    def run(self, run: RunView) -> None:
        """Print nothing about the end: the user asked for the logs."""

    def close(self) -> None:
        self._logs.close()
        super().close()


def _doing(job: JobView) -> str:
    """Describe an unfinished job for the status line."""
    if job.progress:
        return f"{job.phase.value} {so_far(job.progress)}"
    told = job.reason if job.status in (Status.PREPARING, Status.UPLOADING) else None
    return words.local(told) if told else job.phase.value


def so_far(progress: Progress) -> str:
    """`1.2 GB of 3.4 GB` or `3 of 8 layers`."""
    if progress.unit == "bytes":
        return f"{size_words(progress.done)} of {size_words(progress.total)}"
    return f"{progress.done} of {progress.total} {progress.unit}"
