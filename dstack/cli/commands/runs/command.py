"""`dstack runs` and `dstack jobs`: list runs or jobs, show a run in full, or delete some."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import click

from dstack.cli import connect
from dstack.cli.follow import exit_code
from dstack.cli.output import show, words
from dstack.cli.output.charts import usage as charts
from dstack.cli.output.charts.series import number_words
from dstack.cli.output.progress import state
from dstack.cli.parameters import REF, WORKFLOW, NounOrName, json_option, run_of, run_or_job, yes_option
from dstack.client.client import Client
from dstack.client.settings import user
from dstack.errors import UsageError
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import RepoView, RunView
from dstack.model.job.status import Status
from dstack.model.text.units import size_words

COLUMNS = ("NAME", "WORKFLOW", "STATUS", "USER", "SUBMITTED", "TOOK", "EXIT", "RUNNER", "TAG", "REASON")
SPARE = ("USER", "TOOK", "SUBMITTED")
"""What a narrow terminal does without, in this order."""


@click.group("runs", cls=NounOrName, invoke_without_command=True, subcommand_metavar="| COMMAND [ARGS]...")
@click.argument("run", required=False, type=REF)
@click.option("--workflow", metavar="NAME", type=WORKFLOW, help="List only runs of this workflow.")
@click.option("--status", type=click.Choice([status.value for status in Status]), help="List only runs in this state.")
@click.option("--mine", is_flag=True, help="List only your own runs.")
@click.option(
    "-n", "limit", type=click.IntRange(1, 10**9), default=20, metavar="N", help="Number of runs to list; default: 20."
)
@click.option("--columns", metavar="A,B", help="Show these instead: variables, metrics, or columns such as took.")
@click.option("--sort", metavar="NAME", help="Sort by a variable or metric, the best first; -NAME: the worst first.")
@click.option("--where", multiple=True, metavar="CONDITION", help="List only runs with, for example, 'lr<0.01'.")
@click.option("-w", "--watch", is_flag=True, help="Refresh every two seconds until Ctrl-C, or until RUN ends.")
@click.option("--diff", is_flag=True, help="Print the patch from the run's commit to the code that it ran.")
@click.option("--metrics", is_flag=True, help="Show the CPU, memory and GPU use of the run's jobs over time.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    limit: int,
    watch: bool,
    diff: bool,
    metrics: bool,
    as_json: bool,
    run: str | None = None,
    **filters: Any,
) -> None:
    """List recent runs, or show one in full.

    To show a run that is called `delete`, type `dstack runs -- delete`.
    """
    if ctx.invoked_subcommand is not None:
        return
    if run is None and (diff or metrics):
        option = "--diff" if diff else "--metrics"
        raise UsageError(f"{option} needs the name of one run", hint=f"dstack runs RUN {option}")
    if run is not None and any(filters.values()):
        raise UsageError("options that choose runs can't be used with the name of a run")
    if diff and as_json:
        raise UsageError("--diff can't be used with --json")
    if watch and (diff or metrics):
        raise UsageError("-w can't be used with --diff or --metrics")
    client = connect.connect()
    if diff and run:
        show.out().writelines(client.diff(run))
    elif metrics and run:
        charts.print_metrics(client.metrics(run), as_json=as_json)
    elif watch:
        show.watch(lambda: _show(client, run, limit, filters, as_json=as_json), as_json=as_json)
    else:
        _show(client, run, limit, filters, as_json=as_json)


def _show(client: Client, name: str | None, limit: int, filters: Mapping[str, Any], *, as_json: bool) -> bool:
    """Print the runs, or one in full. Return whether it can still change."""
    if name is None:
        none = "no runs" if any(filters.values()) else "no runs yet; start one with `dstack run WORKFLOW`"
        runs, columns = _find(client, limit, **filters)
        tags = _tags(client) if runs and not as_json else {}
        title = tuple(name.upper() if name.upper() in COLUMNS else name for name in columns)
        spare = [name for name in SPARE if name in title]
        show.list_table(runs, title, lambda run: _cells(run, tags, columns), none, as_json=as_json, spare=spare)
        return True
    run = run_of(client, name)
    if as_json:
        show.document(run)
    else:
        _print(run)
    return not run.status.finished


def _find(
    client: Client, limit: int, *, columns: str | None, where: tuple[str, ...], mine: bool, **filters: Any
) -> tuple[list[RunView], tuple[str, ...]]:
    """Return the runs to list, and the columns to show."""
    chosen = [name for name in map(str.strip, (columns or "").split(",")) if name]
    if columns is not None and not chosen:
        raise UsageError("--columns is empty", hint="dstack runs --columns lr,val_loss")
    names = [name for name in chosen if name.upper() not in COLUMNS]
    by = user() if mine else None
    runs = client.runs(user=by, mine=mine, limit=limit, where=" and ".join(where) or None, names=names, **filters)
    return runs, tuple(dict.fromkeys(["name", *chosen])) if chosen else COLUMNS


def _cells(run: RunView, tags: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    """Return what a run has in these columns; a variable is shown rather than a metric of the same name."""
    known = dict(zip(COLUMNS, _row(run, tags), strict=True))
    numbers = {name: number_words(value) for name, value in run.metrics.items()}
    return [
        known[name.upper()] if name.upper() in known else {**numbers, **run.variables}.get(name, "-")
        for name in columns
    ]


def _tags(client: Client) -> dict[str, str]:
    """Return the tags of each run."""
    tags = defaultdict[str, list[str]](list)
    for tag in client.tags():
        tags[tag.run].append(f":{tag.name}")
    return {run: ", ".join(names) for run, names in tags.items()}


@command.command("delete")
@click.argument("refs", metavar="RUN...", nargs=-1, required=True, type=REF)
@yes_option
@json_option
def delete(refs: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete runs permanently, with their logs and artifacts.

    Results that other runs reuse are kept until those runs are deleted too.
    """
    from dstack.cli.commands.prune import Removals

    if not yes and show.interactive() and not show.confirm(f"Permanently delete {', '.join(refs)}?"):
        raise UsageError("nothing was deleted")
    removed = connect.connect().delete(refs)
    if as_json:
        show.document(removed)
        return
    deleted = Removals(removed)
    deleted.print()
    show.say(f"{deleted.count} deleted, {size_words(deleted.bytes)}")


@click.command("jobs")
@click.argument("run", required=False, type=REF)
@click.option(
    "-n", "limit", type=click.IntRange(1, 10**9), default=20, metavar="N", help="Number of jobs to list; default: 20."
)
@json_option
def jobs(run: str | None, limit: int, as_json: bool) -> None:
    """List recent jobs, newest first, or the jobs of a run.

    RUN may also be the id of a job.
    """
    client = connect.connect()
    target = None if run is None else run_or_job(client, run)
    found = [target] if isinstance(target, JobView) else client.jobs(run=target.name if target else None, limit=limit)
    columns = ("JOB", "RUN", "WORKFLOW", "STATUS", "RUNNER", "TOOK", "EXIT")
    show.list_table(found, columns, _job_row, "no jobs yet; start some with `dstack run WORKFLOW`", as_json=as_json)


def _job_row(job: JobView) -> tuple[str, ...]:
    status = f"{job.status.value}, cached" if job.cached else job.status.value
    took = "" if job.cached else words.took(job.started_at, job.finished_at)
    code = "" if job.exit_code is None else str(job.exit_code)
    return job.id, job.run, job.workflow, status, job.runner or "-", took, code


def _row(run: RunView, tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the cells of a run; empty where there is nothing to say."""
    took = words.took(run.submitted_at, run.finished_at)
    code = str(exit_code(run)) if run.status.finished else ""
    runners = ", ".join(dict.fromkeys(job.runner for job in run.jobs if job.runner and not job.cached))
    reason = words.local(": ".join(filter(None, (_position(run), run.reason))))
    when = words.ago(run.submitted_at)
    return run.name, run.workflow, run.status.value, run.user, when, took, code, runners, tags.get(run.name, ""), reason


def _position(run: RunView) -> str | None:
    """Return `no. 3 in the queue`, or None if no job of the run waits for a runner."""
    places = [job.position for job in run.jobs if job.position is not None]
    return f"no. {min(places)} in the queue" if places else None


def _print(run: RunView) -> None:
    """Print a run in full: its jobs, its code, and why each job was cached or not."""
    finished = run.status.finished
    variables = [f"{name}={value}" for name, value in run.variables.items()]
    show.fields(
        [
            ("run", run.name),
            ("workflow", run.workflow),
            ("status", run.status.value),
            ("exit code", str(exit_code(run)) if finished else None),
            ("reason", words.local(run.reason) if run.reason else None),
            ("position", _position(run)),
            ("user", run.user),
            ("trigger", run.trigger),
            ("submitted", f"{run.submitted_at} ({words.ago(run.submitted_at)})"),
            ("took" if finished else "for", words.took(run.submitted_at, run.finished_at)),
            ("code", _code(run.repo)),
            ("variables", "\n".join(variables) or None),
        ]
    )
    show.line("")
    rows = [(job.id, job.workflow, job.status.value, job.runner or "-") for job in run.jobs]
    show.table(("JOB", "WORKFLOW", "STATUS", "RUNNER"), rows)
    show.line("")
    for job in run.jobs:
        told = f"{job.workflow}: {job.reason}" == run.reason
        text = state(job).removesuffix(f": {words.local(job.reason or '')}") if told else state(job)
        show.line(show.clean(f"{job.workflow}: {text}"))
        for each in job.attempts:
            where = f" on {each.runner}" if each.runner else ""
            why = words.local(each.reason or f"exit code {each.exit_code}")
            show.line(show.clean(f"  attempt {each.number}{where}: {each.status.value}: {why}"))
        show.line(show.clean(f"  cache: {job.cache.why}"))


def _code(repo: RepoView) -> str:
    """Describe where the code came from, in one line."""
    if repo.commit is None:
        return "no commit"
    branch = f" on {repo.branch}" if repo.branch else ""
    changed = " with changes" if repo.dirty else ""
    return f"{repo.commit[:12]}{branch}{changed}" + (f", {repo.url}" if repo.url else "")
