"""`dstack stop`: stop runs and jobs."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.parameters import REF, WORKFLOW, json_option, yes_option
from dstack.errors import UsageError
from dstack.model.api.jobs import StopRequest
from dstack.model.api.runs import RunView
from dstack.model.job.status import Status


@click.command("stop")
@click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, type=REF)
@click.option("--all", "everything", is_flag=True, help="Stop every unfinished run.")
@click.option("--workflow", metavar="NAME", type=WORKFLOW, help="Stop every unfinished run of this workflow.")
@click.option("--abort", is_flag=True, help="Stop at once, without uploading artifacts.")
@yes_option
@json_option
def command(
    refs: tuple[str, ...], everything: bool, workflow: str | None, abort: bool, yes: bool, as_json: bool
) -> None:
    """Stop runs and jobs.

    Jobs get SIGTERM and time to save, then their artifacts are uploaded. A job that is only uploading finishes once the
    upload completes. The command returns at once; `dstack wait RUN` waits for the end. On a terminal, --all, --workflow
    and --abort ask for confirmation.
    """
    if bool(refs) + everything + (workflow is not None) != 1:
        raise UsageError(
            "give the runs or jobs to stop, or --all, or --workflow NAME", hint="`dstack runs` lists the runs"
        )
    if (everything or workflow or abort) and not yes and show.interactive():
        of = f" of '{workflow}'" if workflow else ""
        what = ", ".join(refs) or f"all unfinished runs{of}"
        if not show.confirm(f"{'Abort' if abort else 'Stop'} {what}?"):
            raise UsageError("nothing was stopped")
    runs = connect.connect().stop(StopRequest(refs=refs, everything=everything, abort=abort, workflow=workflow))
    if as_json:
        show.document(runs)
        return
    for run in runs:
        show.say(f"{run.name}: {_outcome(run, abort=abort)}")
    if not runs:
        show.say("no unfinished runs")


def _outcome(run: RunView, *, abort: bool) -> str:
    """Describe what a run does after the request."""
    if run.status.finished:
        return f"already {run.status.value}"
    if not abort and {job.status for job in run.jobs if not job.status.finished} == {Status.UPLOADING}:
        return f"stopping once its artifacts are uploaded; to discard them, run `dstack stop --abort {run.name}`"
    return "stopping"
