"""A comparison of runs, in the API and in `--json`."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.api.results.metrics import Number


class ComparedMetric(Struct, kw_only=True):
    """The last value of a metric, and the best with its step; None if the metric's name doesn't tell what is best."""

    last: Number
    best: Number | None
    best_step: int | float | None


class ComparedRun(Struct, kw_only=True):
    """A run in a comparison. `variables` has those that differ; a run without one has None. `changed_files` differ from
    the first run's code; None if that is not known. `image` and `gpus` are those of the run's own workflow, `seconds`
    how long its job ran."""

    name: str
    workflow: str
    status: str
    submitted_at: str
    variables: dict[str, str | None]
    commit: str | None
    dirty: bool
    changed_files: list[str] | None
    image: str
    gpus: str
    seconds: float | None
    metrics: dict[str, ComparedMetric]


class Comparison(Struct, kw_only=True):
    """Runs side by side. `differs` names what is not the same in all: `workflow`, `status`, `code`, `image`, `gpus`,
    `seconds`, and variables and metrics as `variables.NAME` and `metrics.NAME`. `best` has the run with the best value
    by metric."""

    runs: list[ComparedRun]
    differs: list[str]
    best: dict[str, str]
