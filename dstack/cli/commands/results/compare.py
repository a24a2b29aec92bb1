"""`dstack compare`: what differs between runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import click

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.output.charts.series import number_words, print_csv
from dstack.cli.parameters import REF, json_option
from dstack.errors import UsageError
from dstack.model.api.results.compare import ComparedRun, Comparison
from dstack.model.text.units import took_words

MARK = "*"
"""Follows the best value of a metric."""
MOST_FILES = 10
"""So many changed files of a run are named."""

Column = tuple[str, Callable[[ComparedRun], str]]


@click.command("compare")
@click.argument("refs", metavar="RUN...", nargs=-1, required=True, type=REF)
@click.option("--sort", metavar="METRIC", help="Sort by this metric, the best first.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def command(refs: tuple[str, ...], sort: str | None, as_csv: bool, as_json: bool) -> None:
    """Show what differs between runs, and only that.

    Variables, code, image, GPUs, duration and metrics are compared. Of each metric, you see the last value and, if its
    name tells which values are better, the best one; the best of all runs is marked with *.
    """
    if as_csv and as_json:
        raise UsageError("--csv can't be used with --json")
    found = connect.connect().compare(refs, sort=sort)
    if as_json:
        show.document(found)
        return
    columns = list(_columns(found, exact=as_csv))
    rows = [[cell(run) for _, cell in columns] for run in found.runs]
    if as_csv:
        print_csv([name for name, _ in columns], rows)
        return
    show.table([name for name, _ in columns], rows)
    for line in _changes(found):
        show.line(show.clean(line))
    if len(found.runs) == 1:
        show.say("this is only one run; name others to compare it with")
    elif not found.differs:
        show.say("nothing else differs")


def _columns(found: Comparison, *, exact: bool) -> Iterator[Column]:
    """Yield the columns of what differs. `exact` leaves out what only people read."""
    yield "RUN", lambda run: run.name
    for name in found.differs:
        kind, _, inner = name.partition(".")
        if kind == "variables":
            yield inner, lambda run, inner=inner: run.variables.get(inner) or ""  # type: ignore[misc]
        elif kind == "metrics":
            yield from _metric(found, inner, exact=exact)
        else:
            yield _PLAIN[kind] if not (exact and kind == "seconds") else ("SECONDS", _seconds)


def _metric(found: Comparison, name: str, *, exact: bool) -> Iterator[Column]:
    winner = found.best.get(name)
    judged = any(name in run.metrics and run.metrics[name].best is not None for run in found.runs)

    def last(run: ComparedRun) -> str:
        return _number(run.metrics[name].last, exact) if name in run.metrics else ""

    def top(run: ComparedRun) -> str:
        value = run.metrics[name].best if name in run.metrics else None
        return (_number(value, exact) if value is not None else "") + (MARK * (run.name == winner and not exact))

    yield name, last
    if judged:
        yield f"best {name}", top


def _number(value: float | str, exact: bool) -> str:
    return str(value) if exact else number_words(value)


def _seconds(run: ComparedRun) -> str:
    return "" if run.seconds is None else f"{run.seconds:g}"


def _code(run: ComparedRun) -> str:
    commit = (run.commit or "no commit")[:12]
    return f"{commit} with changes" if run.dirty else commit


_PLAIN: dict[str, Column] = {
    "workflow": ("WORKFLOW", lambda run: run.workflow),
    "status": ("STATUS", lambda run: run.status),
    "code": ("CODE", _code),
    "image": ("IMAGE", lambda run: run.image),
    "gpus": ("GPU", lambda run: run.gpus or "-"),
    "seconds": ("TOOK", lambda run: "" if run.seconds is None else took_words(run.seconds)),
}


def _changes(found: Comparison) -> Iterator[str]:
    """Yield a line for each run whose files differ from the first one's."""
    first: ComparedRun = found.runs[0]
    for run in found.runs:
        if run.changed_files:
            named: Sequence[str] = run.changed_files[:MOST_FILES]
            more = len(run.changed_files) - len(named)
            rest = f" and {more} more" if more else ""
            yield f"{run.name} differs from {first.name} in {', '.join(named)}{rest}"
