"""Notes what is told while a plan runs."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from dstack.model.job.status import FINISHED
from tests.chaos.plan import Plan
from tests.chaos.world import Site

ENDED = {status.value for status in FINISHED}


class Watcher:
    """Notes every reason that jobs show while a plan runs, with its time (wall clock and monotonic, in seconds)."""

    def __init__(self, site: Site, planned: Plan) -> None:
        self.site = site
        self.runs = {run.name for run in planned.runs}
        self.begin = time.time()
        self.seen: list[tuple[float, float, dict[str, Any]]] = []
        self._jobs: list[dict[str, Any]] = []
        self._asked = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.4):
            asked = time.monotonic()
            jobs = self.site.jobs()
            if jobs is not None:
                self._jobs, self._asked = [job for job in jobs if job["run"] in self.runs], asked
                self.seen += [(time.monotonic(), time.time(), job) for job in self._jobs if job["reason_code"]]

    def over(self, runs: set[str], since: float) -> bool:
        """Whether these runs are known and all jobs have ended, as the server says after `since` (monotonic)."""
        jobs = self._jobs
        there = runs <= {job["run"] for job in jobs}
        return self._asked > since and there and all(job["status"] in ENDED for job in jobs)

    def close(self) -> None:
        self._done.set()
        self._thread.join()


class ServerLog:
    """What the server's log says from now on."""

    def __init__(self, site: Site) -> None:
        self.path = site.home.dstack / "server" / "server.log"
        self.start = self.path.stat().st_size if self.path.exists() else 0

    def tracebacks(self) -> list[str]:
        """One line per kind of unexpected exception."""
        with self.path.open(errors="replace") as log:
            log.seek(min(self.start, self.path.stat().st_size))
            lines = log.read().splitlines()
        found = set()
        for number, line in enumerate(lines):
            if line.startswith("Traceback"):
                trace = list(itertools.takewhile(lambda line: line.startswith((" ", "Traceback")), lines[number:]))
                after = "".join(lines[number + len(trace) :][:1])
                found.add(f"{trace[-1].strip()}: {after}")
        return [f"a traceback in the server's log: {each}" for each in sorted(found)]
