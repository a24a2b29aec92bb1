"""Follows a sweep: a line for each trial that has ended, and a status line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from dstack.cli.follow import Interrupts, attended
from dstack.cli.output import show, words
from dstack.cli.output.screen import SCREEN
from dstack.client.client import Client
from dstack.model.api import wire
from dstack.model.api.sweeps import SweepEvent, SweepView, TrialView
from dstack.model.job.status import Status
from dstack.model.sweep.status import SweepStatus


class SweepLines:
    """Prints each trial once, when it ends; a `quiet` one prints only why the sweep failed."""

    def __init__(self, sweep: SweepView, *, quiet: bool = False) -> None:
        self._sweep = sweep
        self._quiet = quiet
        self._trials = {trial.number: trial for trial in sweep.trials}
        self._printed = {trial.number for trial in sweep.trials if trial.status.finished}

    def begin(self) -> None:
        """Print what will happen."""
        if self._quiet:
            return
        sweep, most = self._sweep, words.count(self._sweep.max_runs, "trial")
        how = f"{sweep.method.value}, seed {sweep.seed}, {sweep.parallel} at a time"
        show.say(f"{sweep.name}: up to {most} of {sweep.workflow} ({how})")

    def trial(self, trial: TrialView) -> None:
        self._trials[trial.number] = trial
        if self._quiet:
            return
        if trial.status.finished and trial.number not in self._printed:
            self._printed.add(trial.number)
            show.say(f"{trial.run}: {outcome(trial, self._sweep)}", style=show.STYLES.get(trial.status.value))
        elif not trial.status.finished:
            self._printed.discard(trial.number)  # it is tried again
        SCREEN.status(show.clean(self._status()))

    def sweep(self, sweep: SweepView) -> None:
        """Print how it ended, and what to type next."""
        self.close()
        if self._quiet and not sweep.exit_code:
            return
        took = words.took(sweep.submitted_at, sweep.finished_at)
        why = f": {words.local(sweep.reason)}" if sweep.reason else ""
        style = show.STYLES.get(sweep.status.value)
        show.say(f"{sweep.name}: {sweep.status.value} after {took}, {counts(sweep.trials)}{why}", style=style)
        if sweep.best:
            show.say(f"best: {sweep.best.run}, {outcome(sweep.best, sweep)}")
        command = "resume" if sweep.status is SweepStatus.STOPPED else "show"
        show.say(f"next: dstack sweep {command} {sweep.name}")

    def close(self) -> None:
        """Remove the status line."""
        SCREEN.close()

    def _status(self) -> str:
        busy = next((each for each in self._trials.values() if not each.status.finished and each.reason), None)
        why = f" · {busy.run}: {words.local(busy.reason or '')}" if busy and not self._running() else ""
        return f"{self._sweep.name}: {counts(self._trials.values())}, of {self._sweep.max_runs}{why}"

    def _running(self) -> bool:
        return any(trial.status is Status.RUNNING for trial in self._trials.values())


class SweepJson:
    """Prints the events as JSON: one object per line, the last is the sweep."""

    def trial(self, trial: TrialView) -> None:
        _write("trial", trial)

    def sweep(self, sweep: SweepView) -> None:
        _write("sweep", sweep)

    def close(self) -> None:
        """There is nothing to end."""


def follow(client: Client, name: str, display: SweepLines | SweepJson) -> int:
    """Follow a sweep to its end, or until the user detaches. Return the command's exit code."""

    def pass_on(interrupts: Interrupts) -> int:
        for event in client.follow_sweep(name):
            with interrupts.held():
                ended = show_event(event, display)
            if ended is not None:
                return ended
        return client.sweep(name).exit_code or 0

    commands = f"look at it with `dstack sweep show {name}`, stop it with `dstack sweep stop {name}`"
    return attended(pass_on, name, display.close, lambda: client.stop_sweep(name), commands=commands)


def show_event(event: SweepEvent, display: SweepLines | SweepJson) -> int | None:
    """Show an event. Return the exit code if it is the end."""
    if event.trial:
        display.trial(event.trial)
    if event.sweep is None or event.sweep.finished_at is None:
        return None
    display.sweep(event.sweep)
    return event.sweep.exit_code or 0


def outcome(trial: TrialView, sweep: SweepView) -> str:
    """Describe a trial in a line: its state, its value of the metric, and its values."""
    state = trial.status.value
    if trial.status is Status.FAILED:
        state = f"failed with exit code {trial.exit_code}"
    measured = f", {sweep.metric.name} {trial.value:.6g}" if sweep.metric and trial.value is not None else ""
    why = f": {words.local(trial.reason)}" if trial.reason else ""
    return f"{state}{measured} ({values_words(trial.values)}){why}"


def values_words(values: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def counts(trials: Any) -> str:
    """Count trials by status: `3 done, 1 failed, 4 running`."""
    counted = Counter(trial.status for trial in trials)
    return (
        ", ".join(f"{counted[status]} {status.value}" for status in reversed(Status) if counted[status]) or "no trials"
    )


def _write(event: str, value: TrialView | SweepView) -> None:
    show.write_json(wire.encode({"event": event, **msgspec.to_builtins(value)}))
