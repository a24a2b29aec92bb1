"""`dstack sweep list`, `show`, `stop`, `resume` and `retry-failed`."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.commands.sweep.command import command
from dstack.cli.commands.sweep.follow import counts, outcome
from dstack.cli.output import show, words
from dstack.cli.parameters import SWEEP, json_option
from dstack.model.api.sweeps import SweepSummary, SweepView, TrialView

COLUMNS = ("NAME", "WORKFLOW", "STATUS", "METHOD", "TRIALS", "BEST", "USER", "SUBMITTED")
SPARE = ("USER", "SUBMITTED", "METHOD")
"""What a narrow terminal does without, in this order."""

name_argument = click.argument("name", type=SWEEP)


@command.command("list")
@click.option(
    "-n", "limit", type=click.IntRange(1, 10**9), default=20, metavar="N", help="Number of sweeps to list; default: 20."
)
@json_option
def list_command(limit: int, as_json: bool) -> None:
    """List recent sweeps, newest first."""
    none = "no sweeps yet; start one with `dstack sweep WORKFLOW --VARIABLE SPACE`"
    sweeps = connect.connect().sweeps(limit=limit)
    show.list_table(sweeps, COLUMNS, _row, none, as_json=as_json, spare=SPARE)


def _row(sweep: SweepSummary) -> tuple[str, ...]:
    made, value = sum(sweep.trials.values()), sweep.best and sweep.best.value
    best = "" if value is None or sweep.metric is None else f"{sweep.metric.name} {value:.6g}"
    trials = f"{made - sweep.trials.get('unfinished', 0)} of {sweep.max_runs}"
    submitted = words.ago(sweep.submitted_at)
    return sweep.name, sweep.workflow, sweep.status.value, sweep.method.value, trials, best, sweep.user, submitted


@command.command("show")
@name_argument
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Show a sweep with all its trials."""
    sweep = connect.connect().sweep(name)
    if as_json:
        show.document(sweep)
    else:
        _print(sweep)


def _print(sweep: SweepView) -> None:
    metric, early, best = sweep.metric, sweep.stop_early, sweep.best
    show.fields(
        [
            ("name", sweep.name),
            ("workflow", sweep.workflow),
            ("status", "stopping" if sweep.stopping else sweep.status.value),
            ("reason", sweep.reason and words.local(sweep.reason)),
            ("method", f"{sweep.method.value}, seed {sweep.seed}"),
            ("metric", f"{metric.goal} {metric.name}, {metric.of}" if metric else None),
            ("stop-early", f"{early.rule}, after step {early.warmup}" if early else None),
            ("trials", f"{counts(sweep.trials)}, of {sweep.max_runs}"),
            ("took", words.took(sweep.submitted_at, sweep.finished_at)),
            ("best", f"{best.run}, {outcome(best, sweep)}" if best else None),
        ]
    )
    if sweep.trials:
        show.line("")
        _print_trials(sweep)


def _print_trials(sweep: SweepView) -> None:
    names = list(sweep.trials[0].values)
    measured = [sweep.metric.name] if sweep.metric else []
    rows = [_trial_row(trial, names, measured=bool(measured)) for trial in sweep.trials]
    show.table(("RUN", "STATUS", *names, *measured, "REASON"), rows)


def _trial_row(trial: TrialView, names: list[str], *, measured: bool) -> tuple[str, ...]:
    value = [f"{trial.value:.6g}" if trial.value is not None else ""] if measured else []
    reason = words.local(trial.reason) if trial.reason else ""
    return trial.run, trial.status.value, *(trial.values.get(name, "") for name in names), *value, reason


@command.command("stop")
@name_argument
@json_option
def stop_command(name: str, as_json: bool) -> None:
    """Stop a sweep and its running trials.

    Each trial gets its workflow's `stop-grace`, and what it made so far is stored. `dstack sweep resume` goes on with
    the sweep.
    """
    _print_change(connect.connect().stop_sweep(name), "stopping", as_json=as_json)


@command.command("resume")
@name_argument
@click.option("--max-runs", type=click.IntRange(1, 10_000), metavar="N", help="Try up to N combinations in all.")
@json_option
def resume_command(name: str, max_runs: int | None, as_json: bool) -> None:
    """Go on with a sweep that has ended.

    It was stopped, had too many failures, or is to try more. Trials that `dstack sweep stop` stopped run again from the
    start, with the same values.
    """
    _print_change(connect.connect().resume_sweep(name, max_runs), "resumed", as_json=as_json)


@command.command("retry-failed")
@name_argument
@json_option
def retry_command(name: str, as_json: bool) -> None:
    """Run the failed and lost trials of a sweep again.

    They have the same values. The second run of the trial NAME-3 is called NAME-3.2.
    """
    _print_change(connect.connect().retry_failed(name), "trying its failed trials again", as_json=as_json)


def _print_change(sweep: SweepView, what: str, *, as_json: bool) -> None:
    if as_json:
        show.document(sweep)
    else:
        show.say(f"{sweep.name}: {what}; see `dstack sweep show {sweep.name}`")
