"""Knows the plan and its faults, and says what dstack got wrong."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dstack.model.job.reasons import ReasonCode
from tests.chaos.faults.fault import Fault
from tests.chaos.plan import Plan, PlannedRun, log_of
from tests.chaos.watcher import ENDED, Watcher
from tests.chaos.world import Site

STATES = {"queued", "placed", "running", "uploading", "done", "failed", "stopped", "lost"}
ALWAYS = {
    ReasonCode.WAITING_FOR_DEPENDENCY,
    ReasonCode.RUNNER_BUSY,
    ReasonCode.RESERVED_FOR_OTHER_JOB,
    ReasonCode.RUNNER_BEING_CHECKED,
    ReasonCode.UPLOADING,
    ReasonCode.EXIT_CODE,
    ReasonCode.DEPENDENCY_FAILED,
    ReasonCode.WAITING_FOR_SAME_JOB,
}
"""Reasons that need no fault."""
STOPPED = {ReasonCode.STOPPED_BY_USER, ReasonCode.ABORTED, ReasonCode.STOPPING}
MOMENT = re.compile(r"\bsince (\d{4}-\d\d-\d\dT[\d:.]+Z)")
RAW = re.compile(r"exit status \d|Error response from daemon|Traceback|internal error|: *$")
"""Another program's words, or none, instead of a reason."""
BLAMES = {
    "dockerd": re.compile(r"Docker on (machine\d) (?:has|does) not answer"),
    "disk": re.compile(r"the disk of (machine\d) (?:is|has been) full"),
}
"""What a reason blames, with the machine; see `Fault.breaks`."""
AFTERWARDS = 40.0
"""Seconds for which a fault still explains what is told: pauses between tries grow."""


def forgettable(moment: float, faults: list[tuple[Fault, float, float]]) -> bool:
    """Whether a fault made the server forget what was done at this moment (monotonic, in seconds)."""
    return any(fault.forgets and begin <= moment <= end for fault, begin, end in faults)


@dataclass(frozen=True)
class Case:
    """What is known when all is over. The attempts in `hit`, `<job>` or `<job>-<attempt>`, may have been ended by a
    fault; `told` are the lines that jobs wrote to the witness; `known` are the runs that no fault made the server
    forget. What it learned of the others from the machines is not tried again."""

    site: Site
    faults: list[tuple[Fault, float, float]]
    told: list[str]
    known: set[str]

    @property
    def hit(self) -> set[str]:
        return {attempt for fault, _, _ in self.faults for attempt in fault.hit}

    def struck(self, attempt: dict[str, Any], submitted: str) -> bool:
        """Whether a fault that may end every job of a machine did so with this attempt."""
        begin = datetime.fromisoformat((attempt["started_at"] or submitted).replace("Z", "+00:00")).timestamp()
        end = datetime.fromisoformat(attempt["finished_at"].replace("Z", "+00:00")).timestamp()
        offset = time.time() - time.monotonic()
        return any(
            fault.all_jobs
            and fault.machine.name == attempt["runner"]
            and since + offset < end + 5
            and begin < until + offset + 5
            for fault, since, until in self.faults
        )


def violations(
    site: Site, planned: Plan, faults: list[tuple[Fault, float, float]], accepted: set[str], watcher: Watcher
) -> list[str]:
    """Return one line per broken promise. `faults` come with the moments of their begin and end (monotonic, in
    seconds); `accepted` are the runs that the server acknowledged and has to know."""
    found = []
    case = Case(site, faults, _told(site.world.witness / "told"), accepted)
    for run in planned.runs:
        record = site.ask("runs", run.name)
        if record is None:
            if run.name in accepted and not run.deleted:
                found.append(f"{run.name} was accepted and is unknown")
            continue
        if run.deleted:
            found.append(f"{run.name} was deleted and is still known")
        for job in record["jobs"]:
            found += _job(case, run, job)
        found += _events(site, record)
    begun = Counter(line.split()[1] for line in case.told if line.startswith("begun"))
    found += [f"the commands of attempt {attempt} ran {count} times" for attempt, count in begun.items() if count > 1]
    return found + _reasons(watcher, faults, planned) + _left(site)


def _told(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _job(case: Case, run: PlannedRun, job: dict[str, Any]) -> list[str]:
    """What is wrong with one job after everything has ended."""
    name = f"{run.name}: {job['workflow']} ({job['id']})"
    work = run.work[int(job["workflow"].rsplit("-", 1)[1]) - 1]
    attempt = f"{job['id']}-{job['attempt']}"
    own = job["id"] if job["attempt"] == 1 else attempt
    begun, ended = f"begun {attempt}" in case.told, f"ended {attempt} {work.code}" in case.told
    state = f"{job['status']} {job['exit_code']} {job['reason_code']}: {job['reason']}"
    if job["status"] not in ENDED:
        return [f"{name} has not ended: {state}"]
    if job["reason_code"] == ReasonCode.DEPENDENCY_FAILED:
        return [f"{name} began although its dependency failed"] if begun else []
    if job["cached"]:
        found = [f"{name} ran although it is cached"] if begun else []
        return found + _log(case.site, name, job, True, log_of(work)) + _artifacts(case.site, name, job, work.size)
    hit = own in case.hit or case.struck(job, job["submitted_at"])
    excused = hit or run.stop is not None
    found = []
    if job["status"] == "done" and not (ended and work.code == 0):
        found.append(f"{name} is done, but its commands did not end with 0: {case.told}")
    if ended and not excused and (job["status"] == "done") != (work.code == 0):
        found.append(f"{name} ended with {work.code}, but is {state}")
    if ended and not excused and work.code and job["exit_code"] != work.code:
        found.append(f"{name} ended with {work.code}, but is {state}")
    retried = run.name in case.known and "error" in run.causes
    if ended and not excused and work.code and retried and job["attempt"] < run.attempts:
        found.append(f"{name} was not tried again: it is attempt {job['attempt']} of {run.attempts}, and {state}")
    if not ended and not excused:
        found.append(f"{name} did not end by itself, and no fault ended it: {state}")
    aborted = run.stop is not None and run.abort
    found += _log(case.site, name, job, ended and not hit and not aborted, log_of(work))
    return found + _artifacts(case.site, name, job, work.size) + _attempts(case, name, job)


def _attempts(case: Case, name: str, job: dict[str, Any]) -> list[str]:
    """Earlier attempts that were given up although nothing had ended them."""
    found = []
    for attempt in job["attempts"]:
        number = attempt["number"]
        own = job["id"] if number == 1 else f"{job['id']}-{number}"
        ended = any(line.startswith(f"ended {job['id']}-{number} ") for line in case.told)
        excused = ended or own in case.hit or case.struck(attempt, job["submitted_at"])
        if attempt["status"] in ("lost", "failed") and attempt["started_at"] and not excused:
            found.append(f"{name}: no fault ended attempt {number}, which is {attempt['status']}: {attempt['reason']}")
    return found


def _events(site: Site, run: dict[str, Any]) -> list[str]:
    """Where `dstack events` says something else than the states of the jobs."""
    found = []
    events = site.ask("events", run["name"], "-n", "100000") or []
    for job in run["jobs"]:
        kinds = [event["kind"].removeprefix("job.") for event in events if event["job"] == job["id"]]
        states = [kind for kind in kinds if kind in STATES]
        ends = [kind for kind in states if kind in ENDED]
        if job["status"] in ENDED and (ends != [job["status"]] or states[-1] != job["status"]):
            found.append(f"{run['name']}: {job['id']} is {job['status']}, and its events are {', '.join(kinds)}")
    return found


def _log(site: Site, name: str, job: dict[str, Any], whole: bool, expected: bytes) -> list[str]:
    if job["cached"]:
        log = site.home.run("logs", job["id"]).stdout.encode()[-len(expected) :]  # after those of earlier attempts
    else:
        log = site.home.run("logs", job["id"], "--attempt", str(job["attempt"])).stdout.encode()
    if log == expected or (not whole and expected.startswith(log)):
        return []
    same = next(
        (at for at, (a, b) in enumerate(zip(log, expected, strict=False)) if a != b), min(len(log), len(expected))
    )
    return [
        f"{name}: its log has {len(log)} bytes instead of {len(expected)}; from {same} on: {log[same : same + 200]!r}"
    ]


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


def _reasons(watcher: Watcher, faults: list[tuple[Fault, float, float]], planned: Plan) -> list[str]:
    """Reasons that neither a fault nor the plan explains, and moments in reasons that can't be right."""
    found = set()
    runs = {run.name: run for run in planned.runs}
    steady = not any(fault.moves_clock for fault, _, _ in faults)
    for at, wall, job in watcher.seen:
        code, run = job["reason_code"], runs[job["run"]]
        causes = [(begin, end) for fault, begin, end in faults if fault.accounts_for(job)]
        explained = any(begin - 1 <= at <= end + AFTERWARDS for begin, end in causes)
        lasting = bool(causes) and job["status"] in ENDED
        if not (explained or lasting or code in ALWAYS or code in _planned(run, planned)):
            found.add(f"job {job['id']} of {run.name} was {job['status']} with reason {code}: {job['reason']}")
        if not _true(job["reason"] or "it", faults):
            found.add(f"job {job['id']} of {run.name} was {job['status']} with a false reason: {job['reason']}")
        for moment in MOMENT.findall(job["reason"] or "") if steady else ():
            since = datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
            if not watcher.begin - 60 <= since <= wall + 1:
                found.add(f"job {job['id']} of {run.name}: {job['reason']} (it is {datetime.fromtimestamp(wall)})")
    return sorted(found)


def _true(text: str, faults: list[tuple[Fault, float, float]]) -> bool:
    """Whether it is a reason in dstack's own words, and what it blames was broken there."""
    broken = {(fault.breaks, fault.machine.name) for fault, _, _ in faults}
    blamed = {(part, machine) for part, words in BLAMES.items() for machine in words.findall(text)}
    return blamed <= broken and not RAW.search(text)


def _planned(run: PlannedRun, planned: Plan) -> set[ReasonCode]:
    """The reasons that this run's own plan explains."""
    codes: set[ReasonCode] = set()
    if run.stop is not None:
        codes |= STOPPED
    if run.hold is not None:
        codes.add(ReasonCode.HELD)
    preemptible = any(other.preemptible for other in planned.runs if other.name in (run.name, run.same))
    if preemptible and any(other.priority > run.priority for other in planned.runs):
        codes |= {ReasonCode.PREEMPTED, ReasonCode.STOPPING}
    return codes


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
        if left := [path.name for path in machine.jobs()]:
            found.append(f"{machine.name} still has folders: {left}")
    return found
