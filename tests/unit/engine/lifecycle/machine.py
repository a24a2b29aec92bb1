"""A machine in memory, for what a real one can't show on demand: a kill between any two steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dstack.commands.command import Command, Result
from dstack.commands.job.launch import ANSWER_END
from dstack.engine.context import Context, Events
from dstack.engine.fleet.runners import Fleet
from dstack.engine.lifecycle.drive import Drive
from dstack.hosts.pool import Pool
from dstack.hosts.recording import RecordingHost, Reply
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.runner.runner import Address, Facts, Runner
from dstack.store.store import Store

LOG = b"first line\nsecond line\n\xff\x00\r end without newline"
ORIGIN = "boot=b1\ndocker=7:100\n"


class Killed(BaseException):
    """The server was killed here."""


class Machine:
    """Does what the host scripts do, as far as the engine can see. `begun` counts how often the commands were started;
    they end at once unless they should be `running`. They make links, which `made` maps to their targets. `seen` is
    what an observation tells besides.

    `trouble` is called with the name of every command before it takes effect, and after: it may raise.
    """

    def __init__(self, exit_code: int = 0, trouble: Callable[[str], None] = lambda when: None) -> None:
        self.exit_code = exit_code
        self.trouble = trouble
        self.begun = 0
        self.claim = "none"
        self.running = False
        self.asked = False
        self.seen: dict[str, str] = {}
        self.lacks_image = False
        self.made: dict[str, str] = {}
        self.host = RecordingHost(self.reply)

    def reply(self, command: Command[Any]) -> Reply:
        answers: dict[str, Callable[[Command[Any]], Reply]] = {
            "launching the job": self.launch,
            "observing the job": self.observe,
            "following the log": self.log,
            "reading the log": self.log,
            "stopping the job": self.stop,
            "warning the job": lambda command: Result(0 if self.running else 1, b"", b"No such container"),
            "pulling busybox": self.pull,
            "asking the runner to answer": lambda command: b"",
            "listing the artifacts": self.listing,
            "keeping the artifacts": lambda command: f"kept=yes\n{self.discard(command)}",
            "removing the job's folder": self.discard,
            "asking what is on the machine": lambda command: "",
        }
        self.trouble(f"before {command.name}")
        answer = answers[command.name](command)
        self.trouble(f"after {command.name}")
        return answer

    def launch(self, command: Command[Any]) -> Reply:
        if self.claim == "fenced":
            return "outcome=fenced\n"
        if self.lacks_image:
            return "need=image\n"
        if self.claim in ("none", "gone"):
            self.begun += 1
            self.claim = "claimed"
            answer = f"outcome=started\n{ORIGIN}digest=sha256:1\n".encode()
            return answer + ANSWER_END[1:] + LOG if "follow_log" in command.script else answer
        return f"outcome=exists\n{ORIGIN}digest=sha256:1\n"

    def observe(self, command: Command[Any]) -> Reply:
        running = self.claim == "claimed" and self.running
        container = '{"Status": "running"}' if running else "none"
        seen = "".join(f"{key}={value}\n" for key, value in self.seen.items())
        ended = str(self.exit_code) if self.claim == "claimed" and not running else ""
        asked = "asked=yes\n" if self.asked else ""
        return f"container={container}\nclaim={self.claim}\n{ORIGIN}{asked}log_size={len(LOG)}\nexit={ended}\n{seen}"

    def log(self, command: Command[Any]) -> Reply:
        ahead = "follow_log '" if "follow_log" in command.script else 'tail -c "+"\''
        first = int(command.script.rpartition(ahead)[2].split("'")[0])
        return Result(0, LOG[first - 1 :] if self.claim == "claimed" else b"", b"")

    def stop(self, command: Command[Any]) -> Reply:
        if self.claim != "claimed":
            self.claim = "fenced"
            return "outcome=fenced\n"
        if self.running and "answer running" in command.script:
            return "outcome=running\n"
        self.asked = self.running
        outcome, self.running = "stopping" if self.running else "ended", False
        return f"outcome={outcome}\n"

    def pull(self, command: Command[Any]) -> Reply:
        self.lacks_image = False
        return ""

    def listing(self, command: Command[Any]) -> Reply:
        if not self.made:
            return "path=missing\nend=\n"
        links = "".join(f"./{path}\0{target}\0" for path, target in self.made.items())
        none = "names=0\nstats=0\nhashes=0\n", "folders=0\nmodes=0\nlong=0\ntrouble=0\n"
        return f"path=present\n{none[0]}links={len(links)}\n{links}{none[1]}end=\n"

    def discard(self, command: Command[Any]) -> Reply:
        self.claim, self.running = "gone", False
        return ""


class World:
    """A server's state with one job, placed on the machine."""

    def __init__(self, home: Path, machine: Machine) -> None:
        self.layout = ServerLayout(home)
        self.machine = machine
        self.store = Store(self.layout)
        self.reopened()
        if self.store.runs.get("run") is None:
            self.populate()

    def reopened(self) -> None:
        """Return the same state in a new process."""
        pool = Pool()
        pool.get = pool.anew = lambda runner: self.machine.host  # type: ignore[method-assign, assignment, return-value]
        machines = Fleet(self.store, pool, lambda: None)
        self.context = Context(layout=self.layout, store=self.store, fleet=machines, events=Events())

    def populate(self) -> None:
        facts = Facts(machine="m")
        self.store.runners.add(Runner(name="box", address=Address(host="box"), facts=facts))
        self.store.known_objects.add("box", "repo", ["tree"])
        snapshot = Snapshot(repo="repo", tree="tree")
        self.store.runs.add(
            Run(name="run", workflow="job", user="ann", submitted_at="2026-01-01", snapshot=snapshot, variables={})
        )
        self.store.jobs.add(
            Job(
                id="abc",
                run="run",
                workflow="job",
                definition=Workflow(name="job", image="busybox", commands=("true",)),
                variables=Variables(),
                image="busybox",
                key="k",
                why="",
                submitted_at="2026-01-01",
                status=Status.PREPARING,
                runner="box",
            )
        )

    @property
    def job(self) -> Job:
        return self.store.jobs.require("abc")

    @property
    def log(self) -> bytes:
        return self.store.logs.read("abc", 0, 1 << 20)

    def drive(self) -> Drive:
        """Start a new drive, as a starting server does."""
        self.reopened()
        return Drive(self.context, "abc")
