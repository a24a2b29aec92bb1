"""Measure what it costs to read the metrics of logs, with all that is stored of them. `metrics_cost.py [ROUNDS]`"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.log_metrics import LogMetrics
from dstack.model.job.job import Job
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Variables, Workflow
from dstack.store.store import Store

LINES, SECONDS = 10_000, 10
"""Per second, and for how many: what is stored of a series becomes less, the longer it is."""
NOW = "2026-01-01T00:00:00.000Z"
TEXT = "2026-01-01 12:30:05,123 INFO worker loader.py:88 finished shard {n} of the validation set, cache is warm"
PAIRS = "step {n} train_loss=0.{n:06} lr: 1e-05, acc: 0.93 it/s 12.5"
JSON = '{{"step": {n}, "train_loss": 0.{n:06}, "lr": 1e-05, "acc": 0.93}}'
BAR = "\r {n}%|████      | {n}/10000 [00:05<00:05,  9.52it/s, loss=0.{n:06}]"
NAMED = {"train_loss": r"train_loss=(\S+)", "acc": r"acc: (\S+)", "step": r"step (\d+)"}
LOGS: dict[str, tuple[Callable[[int], str], str | dict[str, str]]] = {
    "auto, text, metrics in one line of ten": (lambda n: PAIRS if n % 10 == 0 else TEXT, "auto"),
    "auto, text without metrics": (lambda n: TEXT, "auto"),
    "auto, metrics in every line": (lambda n: PAIRS, "auto"),
    "auto, JSON in every line": (lambda n: JSON, "auto"),
    "auto, a progress bar": (lambda n: BAR, "auto"),
    "3 expressions, metrics in one line of ten": (lambda n: PAIRS if n % 10 == 0 else TEXT, NAMED),
    "3 expressions, metrics in every line": (lambda n: PAIRS, NAMED),
}


def job_with(store: Store, name: str, metrics: str | dict[str, str]) -> Job:
    """Record a job that reads these metrics."""
    definition = Workflow(name="w", image="i", commands=("true",), metrics=metrics)
    basic = {
        "definition": definition,
        "variables": Variables(),
        "image": "i",
        "key": "k",
        "why": "",
        "submitted_at": NOW,
    }
    job = Job(id=name, run=name, workflow="w", **basic)  # type: ignore[arg-type]
    store.jobs.add(job)
    return job


def measure(store: Store, name: str, log: str, metrics: str | dict[str, str]) -> float:
    """Return the processor seconds for reading a log."""
    job = job_with(store, name, metrics)
    store.logs.append(name, log.encode())
    reading = LogMetrics(cast(JobOnRunner, SimpleNamespace(store=store, job=job)))
    start = time.process_time()
    asyncio.run(reading.finish())
    return time.process_time() - start


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(f"share of a core for reading metrics at {LINES:,} lines per second, best of {rounds}:")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(ServerLayout(Path(folder)))
        for number, (title, (line, metrics)) in enumerate(LOGS.items()):
            log = "\n".join(line(n).format(n=n) for n in range(LINES * SECONDS))
            best = min(measure(store, f"j{number}x{turn}", log, metrics) for turn in range(rounds))
            print(f"  {title:<42} {best / SECONDS * 100:5.1f}%")
        store.close()


if __name__ == "__main__":
    main()
