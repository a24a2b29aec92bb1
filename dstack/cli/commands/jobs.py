"""`dstack jobs`: list recent jobs, or the jobs of a run."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.names import REF, run_or_job
from dstack.cli.options import json_option
from dstack.cli.output import show, words
from dstack.model.api.jobs import JobView


@click.command("jobs")
@click.argument("run", required=False, type=REF)
@click.option(
    "-n", "limit", type=click.IntRange(1, 10**9), default=20, metavar="N", help="Number of jobs to list; default: 20."
)
@json_option
def command(run: str | None, limit: int, as_json: bool) -> None:
    """List recent jobs, newest first, or the jobs of a run.

    RUN may also be the id of a job.
    """
    client = connect.connect()
    target = None if run is None else run_or_job(client, run)
    jobs = [target] if isinstance(target, JobView) else client.jobs(run=target.name if target else None, limit=limit)
    if as_json:
        show.document(jobs)
    elif not jobs:
        show.say("no jobs yet; start some with `dstack run WORKFLOW`")
    else:
        show.table(("JOB", "RUN", "WORKFLOW", "STATUS", "RUNNER", "TOOK", "EXIT"), [_row(job) for job in jobs])


def _row(job: JobView) -> tuple[str, ...]:
    status = f"{job.status.value}, cached" if job.cached else job.status.value
    took = "" if job.cached else words.took(job.started_at, job.finished_at)
    code = "" if job.exit_code is None else str(job.exit_code)
    return job.id, job.run, job.workflow, status, job.runner or "-", took, code
