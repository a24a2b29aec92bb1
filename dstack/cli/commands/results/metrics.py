"""`dstack metrics`: show what was read from logs, or what would be read from one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import click

from dstack.cli import connect
from dstack.cli import project as project_files
from dstack.cli.output import show
from dstack.cli.output.charts.series import points_of, print_csv, print_series
from dstack.cli.parameters import REF, NounOrName, json_option
from dstack.errors import ErrorCode, UsageError, reason
from dstack.model.api.results.metrics import JobSeries, SeriesView
from dstack.model.metrics.lines import complete
from dstack.model.metrics.series import KEPT
from dstack.model.text.suggest import did_you_mean

CSV = ("run", "job", "workflow", "metric", "step", "time", "value")
BLOCK = 1 << 20
FULL = 500
"""Points of each series in JSON and CSV, unless `--points` says otherwise."""

csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")


@click.group("metrics", cls=NounOrName, invoke_without_command=True, subcommand_metavar="| COMMAND [ARGS]...")
@click.argument("ref", metavar="RUN_OR_JOB", required=False, type=REF)
@click.option("--name", "names", multiple=True, metavar="METRIC", help="Show only this metric; may be repeated.")
@click.option(
    "--points",
    type=click.IntRange(2, KEPT),
    metavar="N",
    help=f"Print at most N points of each series, evenly chosen; default: {FULL}.",
)
@csv_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    points: int | None,
    as_csv: bool,
    as_json: bool,
    ref: str | None = None,
) -> None:
    """Show the numbers that were read from a run's logs.

    A workflow says with `metrics:` what is read. Of several attempts, the last one counts. To show a run that is called
    `test`, type `dstack metrics -- test`.
    """
    if ctx.invoked_subcommand is not None:
        return
    if ref is None:
        raise UsageError("which run or job?", hint="dstack metrics RUN; `dstack runs` lists the runs")
    if as_csv and as_json:
        raise UsageError("--csv can't be used with --json")
    found = connect.connect().series(ref, points=points or FULL, names=names)
    if as_json:
        show.document(found)
    elif as_csv:
        print_csv(CSV, points_of(found))
    else:
        _print(found, ref)


def _print(jobs: Sequence[JobSeries], ref: str) -> None:
    shown = [job for job in jobs if job.series or job.refused]
    for number, job in enumerate(shown):
        if len(jobs) > 1:
            show.line(("\n" if number else "") + show.clean(f"{job.workflow}:"))
        print_series(job.series)
        _complain(job.refused)
    if not shown:
        _explain(jobs, ref)


def _complain(refused: dict[str, str]) -> None:
    for name, why in refused.items():
        show.say(f"'{name}' is not read: {why}" if name else why)


def _explain(jobs: Sequence[JobSeries], ref: str) -> None:
    """Say why there is nothing to show."""
    if any(job.wanted for job in jobs):
        show.say(
            f"no metrics were found in the logs of {ref} so far; to try what would be read: dstack metrics test FILE"
        )
    else:
        show.say("no metrics: add `metrics: auto` to the workflow in .dstack/workflows.yaml, and run it again")


@command.command("test")
@click.argument("logfile", type=click.Path(path_type=Path))
@click.argument("workflow", required=False)
@csv_option
@json_option
def test(logfile: Path, workflow: str | None, as_csv: bool, as_json: bool) -> None:
    """Show what would be read from a log.

    LOGFILE is a file, or - for stdin. With WORKFLOW, it is read as that workflow says under `metrics`; without, as with
    `metrics: auto`. `dstack logs JOB | dstack metrics test - train` tries it with the log of a job.
    """
    from dstack.model.api.results.metrics import series_view
    from dstack.model.metrics.reader import Reader
    from dstack.model.metrics.state import ReaderState

    if as_csv and as_json:
        raise UsageError("--csv can't be used with --json")
    wanted = _wanted(workflow)
    reader = Reader(wanted, ReaderState(position=0), {})
    _read(logfile, reader.read)
    series = [
        series_view(each.summary(name), [point for _, point in each.fresh]) for name, each in reader.series.items()
    ]
    job = JobSeries(
        job="", run="", workflow=workflow or "", cached_from=None, wanted=True, series=series, refused=reader.refused
    )
    if as_json:
        show.document({"series": series, "refused": reader.refused})
    elif as_csv:
        print_csv(CSV[3:], (row[3:] for row in points_of([job])))
    else:
        _print_test(job, wanted)


def _print_test(job: JobSeries, wanted: str | dict[str, str]) -> None:
    if job.series:
        print_series(job.series)
    _complain(job.refused)
    missing = _missing(wanted, job.series) - job.refused.keys()
    for name in sorted(missing):
        show.say(f"'{name}' matches no line with a number")
    if not job.series and not missing:
        show.say("nothing would be read from it; name what to read under `metrics` in .dstack/workflows.yaml")


def _missing(wanted: str | dict[str, str], series: Sequence[SeriesView]) -> set[str]:
    return set() if isinstance(wanted, str) else wanted.keys() - {each.name for each in series} - {"step"}


def _wanted(workflow: str | None) -> str | dict[str, str]:
    """Return what a workflow of this project reads."""
    if workflow is None:
        return "auto"
    workflows = project_files.load().workflows
    if workflow not in workflows:
        raise UsageError(f"no workflow '{workflow}'{did_you_mean(workflow, workflows)}", hint="dstack run --help")
    metrics = workflows[workflow].metrics
    if metrics is None:
        hint = "add `metrics: auto` to it, or leave out its name here"
        raise UsageError(f"workflow '{workflow}' has no 'metrics' in .dstack/workflows.yaml", hint=hint)
    return metrics


def _read(path: Path, read: Callable[[bytes, float], None]) -> None:
    """Give a file's whole lines to `read`."""
    try:
        with click.open_file(str(path), "rb") as file:
            for lines in _blocks(file):
                read(lines, 0.0)
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {reason(error)}", hint=f"ls -l {shlex.quote(str(path))}", code=ErrorCode.FILE
        ) from error


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while block := file.read(BLOCK):
        rest += block
        whole = complete(rest) or (len(rest) if len(rest) > BLOCK else 0)
        yield rest[:whole]
        rest = rest[whole:]
    yield rest
