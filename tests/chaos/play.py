"""Plays a plan: submits its runs and lets its faults happen, each at its time, and waits until all is over."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import oracle
from tests.chaos.faults.fault import Fault
from tests.chaos.faults.machine import FolderRemoved
from tests.chaos.plan import Plan, PlannedFault, PlannedRun, workflows
from tests.chaos.watcher import ServerLog, Watcher
from tests.chaos.world import Site, World
from tests.e2e.project import project
from tests.environment.waiting import until

PATIENCE = 180.0
"""Seconds after the last fault in which all runs have to end."""


def play(
    world: World,
    planned: Plan,
    environment: dict[str, str] | None = None,
    reasons: set[str] | None = None,
    keep: Path | None = None,
) -> list[str]:
    """Play the plan; return one line per broken promise. It has a server of its own, with this `environment`, if there
    is one; else it uses the server of the plans before, until one of them breaks a promise. `reasons` gets all that
    jobs showed, and the folder `keep` the server's log and database if a promise is broken."""
    if environment is not None:
        with world.fresh(planned.storage, environment) as site:
            return Play(site, planned).run()
    broken = ["it did not end"]
    try:
        playing = Play(world.site(planned.storage), planned)
        broken = playing.run()
        if reasons is not None:
            reasons |= playing.reasons
    finally:
        if broken:
            if keep:
                world.site(planned.storage).keep(keep)
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
        self.accepted: dict[str, float] = {}
        self.happened: list[tuple[Fault, float, float]] = []
        self.broken: list[str] = []
        self.reasons: set[str] = set()
        self.start = time.monotonic()

    def run(self) -> list[str]:
        """Do it all; return the violations."""
        watcher = Watcher(self.site, self.planned)
        log = ServerLog(self.site)
        work: list[tuple[Callable[..., None], object]] = [(self.submit, run) for run in self.planned.runs]
        work += [(self.fault, fault) for fault in self.planned.faults]
        threads = [threading.Thread(target=self.guarded, args=each, daemon=True) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            now = time.monotonic()
            until(lambda: watcher.over(self.known, now), "all runs have ended", PATIENCE)
            until(lambda: not self.left(), "the machines are clean", PATIENCE)
            for run in self.planned.runs:
                if run.deleted and run.name in self.accepted:
                    self.insist(["runs", "delete", "-y", run.name], *self.forgotten(run))
        except AssertionError as late:
            self.broken += [str(late), *oracle.clean(self.site)]
        finally:
            watcher.close()
        self.reasons = {f"{job['status']} {job['reason_code']}: {job['reason']}" for _, _, job in watcher.seen}
        found = oracle.violations(self.site, self.planned, self.happened, self.known, watcher)
        return self.broken + found + log.tracebacks()

    @property
    def known(self) -> set[str]:
        """The accepted runs that no fault made the server forget."""
        return {run for run, at in self.accepted.items() if not oracle.forgettable(at, self.happened)}

    @property
    def forgetful(self) -> bool:
        """Whether a fault of the plan makes the server forget some runs."""
        return any(fault.kind.forgets for fault in self.planned.faults)

    def left(self) -> list[str]:
        """Return what is left on the machines. What was prepared for a forgotten run is shown, and removed by hand; so
        is its container, if a fault removed the folder by which it would have been known."""
        removed = {job for fault, _, _ in self.happened if isinstance(fault, FolderRemoved) for job in fault.hit}
        for runner in (self.site.ask("runners") or []) if self.forgetful else ():
            for orphan in runner["orphans"]:
                if orphan["what"] == "prepared" or orphan["name"] in removed:
                    self.site.home.run("runners", "clean", runner["name"], orphan["name"])
        return oracle.clean(self.site)

    def forgotten(self, run: PlannedRun) -> list[str]:
        """What a command may say about a run, if a fault of the plan makes the server forget some."""
        return [f"no run or job '{run.name}'", f"no run '{run.name}'"] if self.forgetful else []

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
        self.accepted[run.name] = time.monotonic()
        forgotten = self.forgotten(run)
        if run.hold is not None:
            self.insist(["hold", run.name], "no queued job to hold", *forgotten)
            time.sleep(run.hold)
            self.insist(["release", run.name], "no held job", *forgotten)
        if run.stop is not None:
            time.sleep(run.stop)
            self.insist(["stop", "-y", *(["--abort"] if run.abort else []), run.name], *forgotten)

    def insist(self, words: list[str], *unless: str) -> None:
        """Repeat a command until it works, or says that it is too late for it."""

        def worked() -> bool:
            done = self.site.home.run(*words, cwd=self.folder)
            if "Traceback" in done.stderr:
                self.broken.append(f"dstack {' '.join(words)} shows a traceback: {done.stderr}")
            said.append(done.stderr)
            return done.returncode == 0 or any(words in done.stderr for words in unless)

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
