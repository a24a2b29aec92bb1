"""Knows the plan and its faults, and says what dstack got wrong."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import FINISHED
from tests.chaos.faults import Fault
from tests.chaos.plan import Plan, PlannedRun, log_of
from tests.chaos.world import Site

ENDED = {status.value for status in FINISHED}
ALWAYS = {
    ReasonCode.WAITING_FOR_DEPENDENCY,
    ReasonCode.RUNNER_BUSY,
    ReasonCode.RESERVED_FOR_OTHER_JOB,
    ReasonCode.RUNNER_BEING_CHECKED,
    ReasonCode.UPLOADING,
    ReasonCode.EXIT_CODE,
    ReasonCode.DEPENDENCY_FAILED,
}
"""Reasons that need no fault."""
STOPPED = {ReasonCode.STOPPED_BY_USER, ReasonCode.ABORTED, ReasonCode.STOPPING}
AFTERWARDS = 40.0
"""Seconds for which a fault still explains what is told: pauses between tries grow."""


class Watcher:
    """Notes every reason that jobs show while a plan runs, with its time."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.seen: list[tuple[float, str, str, str]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            for job in self.site.ask("jobs", "-n", "50") or []:
                if job["reason_code"]:
                    self.seen.append((time.monotonic(), job["id"], job["status"], job["reason_code"]))

    def close(self) -> None:
        self._done.set()
        self._thread.join()


def violations(
    site: Site, planned: Plan, faults: list[tuple[Fault, float, float]], accepted: set[str], watcher: Watcher
) -> list[str]:
    """Return one line per broken promise. `faults` come with the moments of their begin and end; `accepted` are the
    runs that the server acknowledged."""
    found = []
    told = _told(site.world.witness / "told")
    hit = {attempt for fault, _, _ in faults for attempt in fault.hit}
    stops = {run.name for run in planned.runs if run.stop is not None}
    for run in planned.runs:
        record = site.ask("runs", run.name)
        if record is None:
            if run.name in accepted:
                found.append(f"{run.name} was accepted and is unknown")
            continue
        for job in record["jobs"]:
            found += _job(site, run, job, told, hit)
    for attempt, count in Counter(line.split()[1] for line in told if line.startswith("begun")).items():
        if count > 1:
            found.append(f"the commands of attempt {attempt} ran {count} times")
    found += _reasons(watcher, faults, stops)
    return found + _left(site)


def _told(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _job(site: Site, run: PlannedRun, job: dict[str, Any], told: list[str], hit: set[str]) -> list[str]:
    """What is wrong with one job after everything has ended."""
    name = f"{run.name}: {job['workflow']} ({job['id']})"
    work = run.work[int(job["workflow"].rsplit("-", 1)[1]) - 1]
    attempt = f"{job['id']}-{job['attempt']}"
    own = job["id"] if job["attempt"] == 1 else attempt
    begun, ended = f"begun {attempt}" in told, f"ended {attempt} {work.code}" in told
    state = f"{job['status']} {job['exit_code']} {job['reason_code']}: {job['reason']}"
    if job["status"] not in ENDED:
        return [f"{name} has not ended: {state}"]
    excused = own in hit or run.stop is not None
    if job["reason_code"] == ReasonCode.DEPENDENCY_FAILED:
        return [f"{name} began although its dependency failed"] if begun else []
    found = []
    if job["status"] == "done" and not (ended and work.code == 0):
        found.append(f"{name} is done, but its commands did not end with 0: {told}")
    if ended and not excused and (job["status"] == "done") != (work.code == 0):
        found.append(f"{name} ended with {work.code}, but is {state}")
    if ended and not excused and work.code and job["exit_code"] != work.code:
        found.append(f"{name} ended with {work.code}, but is {state}")
    if not ended and not excused:
        found.append(f"{name} did not end by itself, and no fault ended it: {state}")
    return (
        found + _log(site, name, job, ended and own not in hit, log_of(work)) + _artifacts(site, name, job, work.size)
    )


def _log(site: Site, name: str, job: dict[str, Any], whole: bool, expected: bytes) -> list[str]:
    log = site.home.run("logs", job["id"]).stdout.encode()
    if log == expected or (not whole and expected.startswith(log)):
        return []
    same = next(
        (at for at, (a, b) in enumerate(zip(log, expected, strict=False)) if a != b), min(len(log), len(expected))
    )
    return [f"{name}: its log has {len(log)} bytes instead of {len(expected)}, and differs from byte {same} on"]


def _artifacts(site: Site, name: str, job: dict[str, Any], size: int) -> list[str]:
    if job["status"] != "done":
        return []
    target = site.home.path / f"out-{job['id']}"
    done = site.home.run("artifacts", "download", job["id"], "-o", target)
    if done.returncode:
        return [f"{name} is done, but its artifacts can't be downloaded: {done.stderr}"]
    folder = target / f"made-{job['workflow']}"
    zeros = (folder / "zeros").read_bytes()
    right = zeros == bytes(size) and (folder / "name").read_text() == f"{job['workflow']}\n"
    return [] if right else [f"{name}: its artifacts differ"]


def _reasons(watcher: Watcher, faults: list[tuple[Fault, float, float]], stops: set[str]) -> list[str]:
    """Reasons that neither a fault nor a stop explains."""
    found = set()
    for at, job, status, code in watcher.seen:
        explained = any(code in fault.explains and begin - 1 <= at <= end + AFTERWARDS for fault, begin, end in faults)
        lasting = any(code in fault.explains for fault, _, _ in faults) and status in ENDED
        if not (explained or lasting or code in ALWAYS or (stops and code in STOPPED)):
            found.add(f"job {job} was {status} with reason {code}, which no fault explains")
    return sorted(found)


def _left(site: Site) -> list[str]:
    """What should not be there any longer."""
    found = []
    for runner in site.ask("runners") or []:
        if runner["jobs"]:
            found.append(f"{runner['name']} still has jobs: {runner['jobs']}")
    incoming = site.home.dstack / "server" / "incoming"
    if incoming.exists() and (left := sorted(path.name for path in incoming.iterdir())):
        found.append(f"incoming/ still holds {left}")
    return found


def clean(site: Site) -> list[str]:
    """Containers and job folders that are left on the machines."""
    found = []
    for machine in site.machines:
        if left := machine.containers(everything=True):
            found.append(f"{machine.name} still has containers: {left}")
        if left := sorted(path.name for path in machine.folder.glob("*/*/jobs/*")):
            found.append(f"{machine.name} still has folders: {left}")
    return found
