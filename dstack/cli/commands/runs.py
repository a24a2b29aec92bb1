"""`dstack runs`: list runs, show one in full, or delete some."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.names import REF, NounOrName, run_of
from dstack.cli.options import json_option
from dstack.cli.output import charts, show, words
from dstack.cli.output.progress import exit_code, state
from dstack.client.settings import user
from dstack.errors import UsageError
from dstack.model.api.runs import RepoView, RunView
from dstack.model.job.status import Status
from dstack.model.text.units import size_words


@click.group("runs", cls=NounOrName, invoke_without_command=True, subcommand_metavar="| COMMAND [ARGS]...")
@click.argument("run", required=False, type=REF)
@click.option("--workflow", metavar="NAME", help="List only runs of this workflow.")
@click.option("--status", type=click.Choice([status.value for status in Status]), help="List only runs in this state.")
@click.option("--mine", is_flag=True, help="List only your own runs.")
@click.option(
    "-n", "limit", type=click.IntRange(1, 10**9), default=20, metavar="N", help="Number of runs to list; default: 20."
)
@click.option("--diff", is_flag=True, help="Print the patch from the run's commit to the code that it ran.")
@click.option("--metrics", is_flag=True, help="Show the CPU, memory and GPU use of the run's jobs over time.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    workflow: str | None,
    status: str | None,
    mine: bool,
    limit: int,
    diff: bool,
    metrics: bool,
    as_json: bool,
    run: str | None = None,
) -> None:
    """List recent runs, or show one in full.

    To show a run that is called `delete`, type `dstack runs -- delete`.
    """
    if ctx.invoked_subcommand is not None:
        return
    if run is None and (diff or metrics):
        option = "--diff" if diff else "--metrics"
        raise UsageError(f"{option} needs the name of one run", hint=f"dstack runs RUN {option}")
    if run is not None and (workflow or status or mine):
        raise UsageError("--workflow, --status and --mine can't be used with the name of a run")
    if diff and as_json:
        raise UsageError("--diff can't be used with --json")
    if run is None:
        _list(workflow, status, user() if mine else None, limit, as_json)
    elif diff:
        _print_diff(run)
    elif metrics:
        charts.print_metrics(connect.connect().metrics(run), as_json=as_json)
    else:
        _show(run, as_json)


@command.command("delete")
@click.argument("refs", metavar="RUN...", nargs=-1, required=True, type=REF)
@click.option("-y", "--yes", is_flag=True, help="Don't ask for confirmation.")
@json_option
def delete(refs: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete runs permanently, with their logs and artifacts.

    Results that other runs reuse are kept until those runs are deleted too.
    """
    from dstack.cli.commands.prune import PrunePreview, count, table

    if not yes and show.interactive() and not show.confirm(f"Permanently delete {', '.join(refs)}?"):
        raise UsageError("nothing was deleted")
    removed = connect.connect().delete(refs)
    if as_json:
        show.document(removed)
        return
    deleted = PrunePreview(removed)
    table(deleted)
    show.say(f"{count(deleted)} deleted, {size_words(deleted.bytes)}")


def _list(workflow: str | None, status: str | None, by: str | None, limit: int, as_json: bool) -> None:
    runs = connect.connect().runs(workflow=workflow, status=status, user=by, limit=limit)
    if as_json:
        show.document(runs)
    elif not runs:
        show.say("no runs" if workflow or status or by else "no runs yet; start one with `dstack run WORKFLOW`")
    else:
        columns = ("NAME", "WORKFLOW", "STATUS", "USER", "SUBMITTED", "TOOK", "REASON")
        show.table(columns, [_row(run) for run in runs])


def _print_diff(ref: str) -> None:
    for block in connect.connect().diff(ref):
        show.out().write(block)


def _show(ref: str, as_json: bool) -> None:
    run = run_of(connect.connect(), ref)
    if as_json:
        show.document(run)
    else:
        print_run(run)


def _row(run: RunView) -> tuple[str, ...]:
    took = words.took(run.submitted_at, run.finished_at)
    place = position(run)
    reason = f"{place}: {run.reason}" if place and run.reason else place or run.reason or ""
    return run.name, run.workflow, run.status.value, run.user, words.ago(run.submitted_at), took, reason


def position(run: RunView) -> str | None:
    """Return `no. 3 in the queue`, or None if no job of the run waits for a runner."""
    places = [job.position for job in run.jobs if job.position is not None]
    return f"no. {min(places)} in the queue" if places else None


def print_run(run: RunView) -> None:
    """Print a run in full: its jobs, its code, and why each job was cached or not."""
    finished = run.status.finished
    show.fields(
        [
            ("run", run.name),
            ("workflow", run.workflow),
            ("status", run.status.value),
            ("exit code", str(exit_code(run)) if finished else None),
            ("reason", run.reason),
            ("position", position(run)),
            ("user", run.user),
            ("submitted", f"{run.submitted_at} ({words.ago(run.submitted_at)})"),
            ("took" if finished else "for", words.took(run.submitted_at, run.finished_at)),
            ("code", code(run.repo)),
            ("variables", "\n".join(f"{name}={_value(value)}" for name, value in run.variables.items()) or None),
        ]
    )
    show.line("")
    show.table(
        ("JOB", "WORKFLOW", "STATUS", "RUNNER"),
        [_job(job.id, job.workflow, job.status.value, job.runner) for job in run.jobs],
    )
    show.line("")
    for job in run.jobs:
        show.line(show.clean(f"{job.workflow}: {state(job)}"))
        for each in job.attempts:
            where = f" on {each.runner}" if each.runner else ""
            why = each.reason or f"exit code {each.exit_code}"
            show.line(show.clean(f"  attempt {each.number}{where}: {each.status.value}: {why}"))
        show.line(show.clean(f"  cache: {job.cache.why}"))


def _job(job: str, workflow: str, status: str, runner: str | None) -> tuple[str, ...]:
    return job, workflow, status, runner or "-"


def _value(value: str | None) -> str:
    return "null" if value is None else value


def code(repo: RepoView) -> str:
    """Describe where the code came from, in one line."""
    changed = " with changes" if repo.dirty else ""
    if repo.commit is None:
        return "no commit"
    branch = f" on {repo.branch}" if repo.branch else ""
    return f"{repo.commit[:12]}{branch}{changed}" + (f", {repo.url}" if repo.url else "")
