"""`dstack stop`: end runs and jobs."""

from __future__ import annotations

import click

from dstack.cli import settings, show
from dstack.cli.lookup import REF
from dstack.errors import UsageError
from dstack.model.api.runs import RunView, StopRequest
from dstack.model.status import Status


@click.command("stop")
@click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, type=REF)
@click.option("--all", "everything", is_flag=True, help="Stop every unfinished run.")
@click.option("--workflow", metavar="NAME", help="Stop every unfinished run of this workflow.")
@click.option("--abort", is_flag=True, help="End it at once; nothing that it made is collected.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the runs as JSON.")
def command(
    refs: tuple[str, ...], everything: bool, workflow: str | None, abort: bool, yes: bool, as_json: bool
) -> int:
    """End runs and jobs.

    They get SIGTERM and time to save, and what they made so far is stored. One that only stores its artifacts any more
    ends when it has them. The command returns at once; `dstack wait RUN` waits for the end. On a terminal, --all,
    --workflow and --abort ask first.
    """
    if bool(refs) + everything + (workflow is not None) != 1:
        raise UsageError(
            "name the runs or jobs to stop, or give --all or --workflow NAME", hint="`dstack runs` lists them"
        )
    if (everything or workflow or abort) and not yes and show.interactive():
        of = f" of '{workflow}'" if workflow else ""
        what = ", ".join(refs) or f"all unfinished runs{of}"
        if not show.confirm(f"{'Abort' if abort else 'Stop'} {what}?"):
            raise UsageError("nothing was stopped")
    wish = StopRequest(refs=refs, everything=everything, abort=abort, workflow=workflow)
    runs = settings.connect().stop(wish)
    if as_json:
        show.document(runs)
        return 0
    for run in runs:
        show.say(f"{run.name}: {told(run, abort=abort)}")
    if not runs:
        show.say("nothing is running")
    return 0


def told(run: RunView, *, abort: bool) -> str:
    """What a run does now."""
    if run.status.finished:
        return f"{run.status.value} already"
    if not abort and {job.status for job in run.jobs if not job.status.finished} == {Status.UPLOADING}:
        return f"stopping; what it made is being stored, and dropped by `dstack stop --abort {run.name}`"
    return "stopping"
