"""`dstack stop`, `hold` and `release`: stop runs and jobs, or keep queued jobs from starting."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.parameters import REF, json_option, yes_option
from dstack.client.settings import user
from dstack.errors import ConflictError, UsageError
from dstack.model.api.jobs import HoldRequest, StopRequest
from dstack.model.api.runs import RunView
from dstack.model.job.status import Status

refs_argument = click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, required=True, type=REF)


@click.command("stop")
@click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, type=REF)
@click.option("--all", "everything", is_flag=True, help="Stop every unfinished run.")
@click.option("--workflow", metavar="NAME", help="Stop every unfinished run of this workflow.")
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
        return f"stopping once its artifacts are uploaded; to drop them, run `dstack stop --abort {run.name}`"
    return "stopping"


@click.command("hold")
@refs_argument
def hold(refs: tuple[str, ...]) -> None:
    """Keep queued jobs from starting.

    Held jobs keep their place in the queue until `dstack release`. Running jobs are not affected.
    """
    _change(refs, user())


@click.command("release")
@refs_argument
def release(refs: tuple[str, ...]) -> None:
    """Release held jobs, so that they start when their turn comes."""
    _change(refs, None)


def _change(refs: tuple[str, ...], holder: str | None) -> None:
    """Hold or release, and print the result. Raises ConflictError if there was nothing to change."""
    answer = connect.connect().hold(HoldRequest(refs=refs, user=holder))
    for run in answer.changed:
        show.say(f"{run}: {'held' if holder else 'released'}")
    if answer.unchanged:
        words = "has no queued job to hold" if holder else "has no held job"
        raise ConflictError(f"{answer.unchanged[0]} {words}", hint=f"dstack runs {answer.unchanged[0]}")
