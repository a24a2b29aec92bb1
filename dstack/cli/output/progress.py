"""Prints the progress of a run on stderr."""

from __future__ import annotations

import sys
import time

from dstack.cli.follow import exit_code
from dstack.cli.output import show, words
from dstack.cli.output.displays import Display, LogWriter
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
        text = f"uploading artifacts{where}"
    elif job.status is Status.QUEUED:
        text = "queued"
    else:
        gpus = f" with GPU {','.join(map(str, job.gpus))}" if job.gpus and where else ""
        text = f"{job.status.value}{where}{gpus}"
    return f"{text}: {job.reason}" if job.reason else text


def _ending(run: RunView) -> str:
    took = words.took(run.submitted_at, run.finished_at)
    if run.status is Status.DONE:
        return f"{run.name}: done in {took}"
    reason = f": {run.reason.splitlines()[0]}" if run.reason else ""
    return f"{run.name}: {run.status.value} after {took}, exit code {exit_code(run)}{reason}"


def _next(run: RunView) -> str:
    """Return the command that shows the most of a run that ended: what it stored, what it printed, or why it did not
    start."""
    if run.status is Status.DONE and any(job.artifacts.files for job in run.jobs):
        return "artifacts list"
    return "logs" if any(job.started_at or job.cached for job in run.jobs) else "runs"


class ProgressLines(Display):
    """Prints each change once. Passes logs, except those of cached jobs, to `writer` (None: prints no logs)."""

    def __init__(self, run: RunView, writer: LogWriter | None, *, quiet: bool = False) -> None:
        self._jobs = {job.id: job for job in run.jobs}
        self._named = run.workflow
        self._printed: dict[str, str] = {}
        self._writer = writer
        self._quiet = quiet
        self._spinner = show.Spinner()
        self._transfers: dict[str, float] = {}

    def begin(self) -> None:
        """Print the current state, and why dependencies run or are cached."""
        for job in list(self._jobs.values()):
            if not job.cached and job.workflow != self._named and not self._quiet:
                self._say(f"{job.workflow}: will run: {job.cache.why}")
            self.job(job)

    def job(self, job: JobView) -> None:
        """Print a job's state, if it changed."""
        self._jobs[job.id] = job
        text = state(job)
        if text == "queued":
            return
        if self._printed.get(job.id) != text and not self._only_further(job):
            self._printed[job.id] = text
            if job.status.finished:
                self.finish(job.id, job.workflow)
            if not self._quiet:
                self._say(f"{job.workflow}: {text}", show.STYLES.get(job.status.value) if job.status.finished else None)
        if not self._quiet:
            self._spin()

    def _only_further(self, job: JobView) -> bool:
        """Whether only a transfer has progressed, or the container is about to start. The status line shows that; a
        transfer has a line every SPARSE seconds if there is no status line."""
        if job.phase is Phase.STARTING and job.reason is None:
            return True
        if job.reason_code not in (ReasonCode.PULLING_IMAGE, ReasonCode.UPLOADING):
            return False
        now, last = time.monotonic(), self._transfers.get(job.id)
        if last is None or (now - last >= SPARSE and not show.terminal(sys.stderr)):
            self._transfers[job.id] = now
            return False
        return True

    def log(self, event: Event, data: bytes) -> None:
        known = self._jobs.get(event.id or "")
        if self._writer and not (known and known.cached):
            self._spinner.hide()
            self._writer.log(event, data)

    def finish(self, job: str, workflow: str) -> None:
        if self._writer:
            self._spinner.hide()
            self._writer.finish(job, workflow)

    def run(self, run: RunView) -> None:
        """Print how the run ended, and what to type next. Even a quiet command says why it failed."""
        for job in run.jobs:
            self.job(job)
        if not self._quiet or exit_code(run):
            self._say(_ending(run), show.STYLES.get(run.status.value))
            self._say(f"next: dstack {_next(run)} {run.name}")

    def close(self) -> None:
        """Remove the status line. Start a new line if a log stopped in the middle of one on the same terminal."""
        self._spinner.hide()
        writer = self._writer
        if writer and not writer.fresh_line and show.terminal(sys.stderr) and show.terminal(sys.stdout):
            show.say("")
            writer.fresh_line = True

    def _say(self, text: str, style: str | None = None) -> None:
        self.close()
        show.say(text, style=style)

    def _spin(self) -> None:
        waiting = [job for job in self._jobs.values() if not job.status.finished]
        if waiting and not any(job.status is Status.RUNNING for job in waiting):
            self._spinner.show(" · ".join(f"{job.workflow}: {_doing(job)}" for job in waiting))


def _doing(job: JobView) -> str:
    """Describe an unfinished job for the status line."""
    if job.progress:
        return f"{job.phase.value} {so_far(job.progress)}"
    return job.reason if job.status in (Status.PREPARING, Status.UPLOADING) and job.reason else job.phase.value


def so_far(progress: Progress) -> str:
    """`1.2 GB of 3.4 GB` or `3 of 8 layers`."""
    if progress.unit == "bytes":
        return f"{size_words(progress.done)} of {size_words(progress.total)}"
    return f"{progress.done} of {progress.total} {progress.unit}"
