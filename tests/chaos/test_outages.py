"""Many jobs under a server that is killed all the time, and machines that are away in every phase of a job."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dstack.model.text.units import rfc3339, seconds
from tests.chaos import oracle
from tests.chaos.world import Machine, Site, World
from tests.e2e.project import git, project
from tests.environment.registry import Registry
from tests.environment.waiting import until
from tests.images import BUSYBOX

JOBS = int(os.environ.get("JOBS", "200"))
"""How many jobs run while the server is killed."""
KILLED = float(os.environ.get("KILLED", "3"))
"""Seconds that the server lives, from its first answer on; more on a machine that is busy with other things."""
EACH = 10
"""Jobs of one run."""
AWAY = float(os.environ.get("AWAY", "60"))
"""Seconds for which machines are away; the true case is ten minutes."""
NOTICED = 45.0
"""Seconds after which every job has to say that its machine does not answer."""
SILENCE = re.compile(r"has not answered since (\S+?Z)|no answer since (\S+?Z)")
LARGE = 5_000_000
SLOW = 30_000
"""Bytes per second of a connection that is to be cut during a transfer."""
SLOWEST = 2_000
"""The same, for an image, which is smaller."""


def job(site: Site, run: str) -> dict[str, Any]:
    """The first job of a run, as soon as the server can tell."""
    record = until(lambda: site.ask("runs", run), f"the server tells about {run}", 120)
    found: dict[str, Any] = record["jobs"][0]
    return found


@contextmanager
def world_of(machines: int) -> Iterator[World]:
    with closing(World(machines)) as world:
        yield world


# --- many jobs


def test_many_jobs_while_the_server_is_killed_again_and_again(tmp_path: Path) -> None:
    with world_of(4) as world, world.fresh("folder") as site:
        folder = project(tmp_path / "p", many(world.witness))
        runs = [f"many{number}" for number in range(JOBS // EACH)]
        over = threading.Event()
        killer = threading.Thread(target=keep_killing, args=(site, over))
        killer.start()
        try:
            # When all of them are submitted while the server is killed again and again
            for run in runs:
                submit(site, folder, run)

            # Then all of them end
            until(lambda: unfinished(site, runs) == 0, "all jobs have ended", 2400)
        finally:
            over.set()
            killer.join()
        site.serve()

        # And each has run once, as it should, with its whole log
        check_many(site, runs)
        until(lambda: not oracle.clean(site), "the machines are clean", 120)
        assert all(machine["jobs"] == [] for machine in site.ask("runners"))


def many(witness: Path) -> str:
    """One run: jobs that need nothing, and one that needs them all."""
    lines = ["workflows:"]
    names = [f"job{number}" for number in range(1, EACH)]
    for name in [*names, "last"]:
        needs = ", ".join(names) if name == "last" else ""
        lines += [
            f"  - name: {name}",
            f"    image: {BUSYBOX}",
            f"    mounts: ['{witness}:/witness']",
            f"    depends-on: {{config: [], workflows: [{needs}]}}",
            "    commands:",
            '      - echo "begun $DSTACK_JOB_ID-$DSTACK_ATTEMPT" >>/witness/told',
            f"      - i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo {name} $i; [ $((i % 10)) != 0 ] || sleep 0.1; done",
        ]
    return "\n".join(lines) + "\n"


def submit(site: Site, folder: Path, run: str) -> None:
    """Submit until the server accepts it. Nothing comes from the cache: every job has to run."""
    words = ["run", "last", "--name", run, "-d", "--no-cache", "--idempotency-key", run]

    def accepted() -> bool:
        done = site.home.run(*words, cwd=folder)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode == 0

    until(accepted, f"{run} is accepted", 300)


def keep_killing(site: Site, over: threading.Event) -> None:
    while not over.wait(KILLED):
        site.kill()
        site.serve()


def unfinished(site: Site, runs: list[str]) -> int | None:
    jobs = site.ask("jobs", "-n", str(2 * JOBS))
    if jobs is None or {each["run"] for each in jobs} != set(runs):
        return None
    return sum(each["phase"] != "ended" for each in jobs)


def check_many(site: Site, runs: list[str]) -> None:
    jobs = site.ask("jobs", "-n", str(2 * JOBS))
    assert Counter(each["status"] for each in jobs) == {"done": len(runs) * EACH}
    ran = [each for each in jobs if not each["cached"]]
    told = (site.world.witness / "told").read_text().split()[1::2]
    assert sorted(told) == sorted(f"{each['id']}-{each['attempt']}" for each in ran), "each job ran once"
    for each in jobs:
        expected = "".join(f"{each['workflow']} {number}\n" for number in range(1, 51))
        assert site.home.run("logs", each["id"]).stdout == expected, each


# --- machines that are away


class Phase:
    """A job that is brought to a phase on a machine of its own, and what has become of it in the end."""

    ends = "done"
    mute_since = math.inf
    """When its machine's Docker was stopped (wall clock, seconds): from then on the job's runner does not answer it."""

    def __init__(self, stage: Stage, machine: Machine) -> None:
        self.stage, self.site, self.machine = stage, stage.site, machine
        self.name = type(self).__name__.lower()

    def begin(self) -> None:
        """Submit the job, and return once it is in its phase."""
        raise NotImplementedError

    def leave(self) -> None:
        """What happens on the machine while it is away."""

    def submitted(self, workflow: str) -> None:
        words = ("run", workflow, "--name", self.name, "--runner", self.machine.name, "-d", "--no-cache")
        done = self.site.home.run(*words, cwd=self.stage.folder)
        assert done.returncode == 0, done.stderr

    def reaches(self, condition: Callable[[dict[str, Any]], object], what: str) -> None:
        until(lambda: condition(job(self.site, self.name)), f"{self.name}: {what}", 180)


class Shipping(Phase):
    """Its code is being sent."""

    def begin(self) -> None:
        self.machine.link.sent = SLOW
        self.submitted("job")
        self.reaches(lambda job: job["phase"] == "shipping" and job["progress"], "its code is being sent")

    def leave(self) -> None:
        self.machine.link.sent = None


class Pulling(Phase):
    """Its image is being pulled, which goes on by itself while the machine is away."""

    def begin(self) -> None:
        self.stage.registry.way.speed = SLOWEST
        self.submitted("pulled")
        self.reaches(lambda job: job["phase"] == "pulling", "its image is being pulled")

    def leave(self) -> None:
        self.stage.registry.way.speed = None


class Starting(Phase):
    """Docker was told to start it, and does so while the machine is away."""

    def begin(self) -> None:
        self.submitted("job")
        until(lambda: self.machine.jobs(), "its folder is there", 180)
        self.mute_since = time.time()
        os.kill(self.machine.daemon.pid, signal.SIGSTOP)
        assert job(self.site, self.name)["status"] in ("preparing", "running")

    def leave(self) -> None:
        os.kill(self.machine.daemon.pid, signal.SIGCONT)


class Running(Phase):
    """Its commands run, and end while the machine is away."""

    def begin(self) -> None:
        self.submitted("waits")
        self.reaches(lambda job: job["status"] == "running", "it runs")
        until(lambda: "line 1\n" in self.site.home.run("logs", self.name).stdout, "its log has begun", 60)

    def leave(self) -> None:
        (self.stage.world.witness / f"go-{self.name}").touch()


class Uploading(Phase):
    """Its artifacts are being stored."""

    def begin(self) -> None:
        self.machine.link.speed = SLOW
        self.submitted("makes")
        self.reaches(lambda job: job["phase"] == "uploading" and job["progress"], "its artifacts are being stored")

    def leave(self) -> None:
        self.machine.link.speed = None


class Stopping(Phase):
    """It is told to stop after the machine has gone."""

    ends = "stopped"

    def begin(self) -> None:
        self.submitted("waits")
        self.reaches(lambda job: job["status"] == "running", "it runs")

    def leave(self) -> None:
        done = self.site.home.run("stop", "-y", self.name)
        assert done.returncode == 0, done.stderr


PHASES: list[type[Phase]] = [Pulling, Shipping, Uploading, Starting, Running, Stopping]
"""The first machine's Docker is the only one that reaches the registry."""


class Stage:
    """All phases at the same time, each on its own machine."""

    def __init__(self, world: World, site: Site, registry: Registry, folder: Path) -> None:
        self.world, self.site, self.registry = world, site, registry
        self.folder = project(folder, self.workflows())
        (self.folder / "large").write_bytes(os.urandom(LARGE))
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-qm", "large")
        self.phases = [kind(self, machine) for kind, machine in zip(PHASES, world.machines, strict=True)]

    def workflows(self) -> str:
        go = "while [ ! -e /witness/go-$run_name ]; do sleep 0.2; done"
        image = f"{self.registry.address}/pulled"
        lines = ["workflows:"]
        lines += workflow("job", BUSYBOX, self.world.witness, "echo line 2")
        lines += workflow("pulled", image, self.world.witness, "echo line 2")
        lines += workflow(
            "waits", BUSYBOX, self.world.witness, go.replace("$run_name", "$DSTACK_RUN_NAME"), "echo line 2"
        )
        lines += workflow("makes", BUSYBOX, self.world.witness, f"head -c {LARGE} /dev/urandom >made", "echo line 2")
        return "\n".join([*lines, "    artifacts: [made]", ""])


def workflow(name: str, image: str, witness: Path, *commands: str) -> list[str]:
    """One workflow; without `large`, a job could do with less code."""
    told = ['echo "begun $DSTACK_JOB_ID" >>/witness/told', "echo line 1", *commands]
    head = [f"  - name: {name}", f"    image: {image}", f"    mounts: ['{witness}:/witness']", "    stop-grace: 2s"]
    return [*head, "    commands:", *(f"      - {command}" for command in told)]


def go_away(machine: Machine, how: str) -> None:
    if how == "frozen":
        machine.link.frozen = True
    else:
        machine.link.refuse()
        machine.link.cut()


def come_back(machine: Machine, how: str) -> None:
    if how == "frozen":
        machine.link.frozen = False
    else:
        machine.link.accept()


def check_reasons(stage: Stage, began: float) -> None:
    """Every job waits for its machine, and says since when: the moment at which the machine was heard last."""
    for phase in stage.phases:
        found = job(stage.site, phase.name)
        shown = f"{phase.name} at {rfc3339(time.time())}: {found['phase']}, {found['reason_code']}: {found['reason']}"
        assert found["phase"] != "ended", shown
        assert found["reason_code"] == "runner-unreachable", shown
        moments = [seconds(one or other) for one, other in SILENCE.findall(found["reason"])]
        assert moments, shown
        first = min(began, phase.mute_since) - 15
        assert all(first < moment < began + 5 for moment in moments), f"away since {rfc3339(began)}; {shown}"


@pytest.mark.parametrize("how", ["frozen", "refused"])
def test_machines_that_are_away_in_every_phase(tmp_path: Path, how: str) -> None:
    with (
        world_of(len(PHASES)) as world,
        closing(Registry(tmp_path / "registry")) as registry,
        world.fresh("folder") as site,
    ):
        daemon, image = world.machines[0].daemon, f"{registry.address}/pulled"
        daemon.docker("tag", BUSYBOX, image)
        daemon.docker("push", image)
        daemon.docker("rmi", image)
        stage = Stage(world, site, registry, tmp_path / "p")

        # Given a job in each phase
        for phase in reversed(stage.phases):  # the transfers last, so that they are not over
            phase.begin()

        # When all machines are away
        began = time.time()
        for phase in stage.phases:
            go_away(phase.machine, how)
        for phase in stage.phases:
            phase.leave()

        # Then every job says so, and says the same until they are back
        end = time.monotonic() + AWAY
        time.sleep(NOTICED)
        check_reasons(stage, began)
        while time.monotonic() < end:
            time.sleep(min(20.0, max(0.0, end - time.monotonic())))
            check_reasons(stage, began)
        for phase in stage.phases:
            come_back(phase.machine, how)

        # And after that all of them end as they really did
        back = time.monotonic()
        for phase in stage.phases:
            phase.reaches(lambda job: job["phase"] == "ended", "it has ended")
            print(f"{phase.name} ended {time.monotonic() - back:.0f} s after its machine was back")
            found = job(site, phase.name)
            assert found["status"] == phase.ends, found["reason"]
            whole = ["line 1", *(["line 2"] if phase.ends == "done" else [])]
            assert site.home.run("logs", phase.name).stdout.splitlines() == whole
        told = Counter((world.witness / "told").read_text().splitlines())
        assert set(told.values()) == {1}, "each ran once"
        until(lambda: not oracle.clean(site), "the machines are clean", 120)
