"""Plays a plan: submits its runs and lets its faults happen, each at its time, and waits until all is over."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import oracle
from tests.chaos.faults import Fault
from tests.chaos.plan import Plan, PlannedFault, PlannedRun, workflows
from tests.chaos.world import Site, World
from tests.e2e.project import project
from tests.environment.waiting import until

PATIENCE = 180.0
"""Seconds after the last fault in which all runs have to end."""


def play(world: World, planned: Plan, environment: dict[str, str] | None = None) -> list[str]:
    """Play the plan; return one line per broken promise. It has a server of its own, with this `environment`, if there
    is one; else it uses the server of the plans before, until one of them breaks a promise."""
    if environment is not None:
        with world.fresh(planned.storage, environment) as site:
            return Play(site, planned).run()
    broken = ["it did not end"]
    try:
        broken = Play(world.site(planned.storage), planned).run()
    finally:
        if broken:
            world.forget(planned.storage)
    return broken


class Play:
    """One plan under way on one site."""

    def __init__(self, site: Site, planned: Plan) -> None:
        self.site = site
        self.planned = planned
        self.folder: Path = project(
            Path(tempfile.mkdtemp(dir=site.home.path)) / "p", workflows(planned, str(site.world.witness))
        )
        self.accepted: set[str] = set()
        self.happened: list[tuple[Fault, float, float]] = []
        self.broken: list[str] = []
        self.start = time.monotonic()

    def run(self) -> list[str]:
        """Do it all; return the violations."""
        watcher = oracle.Watcher(self.site, self.planned)
        log = oracle.ServerLog(self.site)
        work: list[tuple[Callable[..., None], object]] = [(self.submit, run) for run in self.planned.runs]
        work += [(self.fault, fault) for fault in self.planned.faults]
        threads = [threading.Thread(target=self.guarded, args=each, daemon=True) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            now = time.monotonic()
            until(lambda: watcher.over(self.accepted, now), "all runs have ended", PATIENCE)
            until(lambda: not oracle.clean(self.site), "the machines are clean", 60)
            for run in self.planned.runs:
                if run.deleted and run.name in self.accepted:
                    self.insist(["runs", "delete", "-y", run.name])
        except AssertionError as late:
            self.broken += [str(late), *oracle.clean(self.site)]
        finally:
            watcher.close()
        found = oracle.violations(self.site, self.planned, self.happened, self.accepted, watcher)
        return self.broken + found + log.tracebacks()

    def guarded(self, work: Callable[..., None], item: object) -> None:
        try:
            work(item)
        except Exception as error:
            self.broken.append(f"{item}: {error!r}")

    def at(self, moment: float) -> None:
        """Wait until `moment` seconds after the start."""
        time.sleep(max(0.0, self.start + moment - time.monotonic()))

    def submit(self, run: PlannedRun) -> None:
        """Submit until the server accepts the run, and hold and stop it if that is planned."""
        self.at(run.at)
        words = ["run", run.workflow, "--name", run.name, "--detach", "--idempotency-key", run.name]
        self.insist(words)
        self.accepted.add(run.name)
        if run.hold is not None:
            self.insist(["hold", run.name], unless="no queued job to hold")
            time.sleep(run.hold)
            self.insist(["release", run.name], unless="no held job")
        if run.stop is not None:
            time.sleep(run.stop)
            self.insist(["stop", "-y", *(["--abort"] if run.abort else []), run.name])

    def insist(self, words: list[str], unless: str | None = None) -> None:
        """Repeat a command until it works, or says that it is too late for it."""

        def worked() -> bool:
            done = self.site.home.run(*words, cwd=self.folder)
            if "Traceback" in done.stderr:
                self.broken.append(f"dstack {' '.join(words)} shows a traceback: {done.stderr}")
            said.append(done.stderr)
            return done.returncode == 0 or (unless is not None and unless in done.stderr)

        said: list[str] = []
        try:
            until(worked, f"dstack {' '.join(words)} works", PATIENCE)
        except AssertionError as never:
            raise AssertionError(f"{never}: {said[-1]}") from None

    def fault(self, planned: PlannedFault) -> None:
        """Let a fault happen."""
        fault = planned.kind(self.site, random.Random(planned.seed))
        self.at(planned.at)
        begin = time.monotonic()
        try:
            fault.begin()
            time.sleep(planned.seconds)
        finally:
            fault.end()
        self.happened.append((fault, begin, time.monotonic()))
