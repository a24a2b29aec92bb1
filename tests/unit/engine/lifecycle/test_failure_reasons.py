"""Every reason for which a job may fail, as users read it: the hosts' answers are recorded, the engine is real.

After a change of a text: UPDATE_GOLDEN=1 pytest tests/unit/engine/lifecycle/test_failure_reasons.py, and read the diff.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.commands.command import Command, Result
from dstack.engine.engine import Engine
from dstack.engine.fleet.condition import Condition
from dstack.engine.lifecycle import drive, watch
from dstack.hosts.recording import Reply
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.project.workflow import RegistryAuth
from tests.unit.engine.lifecycle.machine import ORIGIN, Machine, World

GOLDEN = Path(__file__).parents[3] / "golden" / "failure-reasons.txt"

LATER = "boot=b1\ndocker=9:900\n"
REBOOTED = "boot=b2\ndocker=1:50\n"
DAEMON = "docker: Error response from daemon: "
CREATE = (
    f"{DAEMON}failed to create shim task: OCI runtime create failed: runc create failed: unable to start container"
    " process: "
)
HOOK = f"{CREATE}error during container init: error running hook #0: exit status 1, stdout: , stderr: "
AUTH = RegistryAuth(username="ann", password="REGISTRY_PASSWORD")
GPU_NOW = "gpu=0, NVIDIA A100, 40960, GPU-0, 550\n"
PROBED = (
    "machine=m\nuser=ann\nkernel=6\ncpus=8\nmemory=64000000\nfolder=/home/ann\nwritable=yes\ndisk_free=900000000\n"
    "disk_total=1000000000\nclient=Docker\nanswers=yes\ngit=2.39\n"
)


class Case:
    """A machine's answers, and what is special about the job."""

    def __init__(
        self,
        *,
        launch: str | None = None,
        pull: str | None = None,
        seen: dict[str, str] | None = None,
        probed: str = PROBED + GPU_NOW,
        gpus: tuple[int, ...] = (),
        stop: str | None = None,
        expired: bool = False,
        end: Status | None = None,
        **definition: Any,
    ) -> None:
        self.launch, self.pull, self.seen, self.probed = launch, pull, seen or {}, probed
        self.gpus, self.stop, self.expired, self.end, self.definition = gpus, stop, expired, end, definition


class Failing(Machine):
    """The machine of a case."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.answers: dict[str, Callable[[], Reply]] = {
            "probing the machine": lambda: case.probed,
            "measuring the latency": lambda: b"",
            "pulling box:1": lambda: Result(1 if case.pull else 0, f"{case.pull or ''}\n".encode(), b""),
            "listing the artifacts": lambda: b"path=missing\nend=\n",
        }

    def reply(self, command: Command[Any]) -> Reply:
        if command.name in self.answers:
            return self.answers[command.name]()
        return super().reply(command)

    def launch(self, command: Command[Any]) -> Reply:
        if self.case.pull is not None and self.claim == "none":
            return "need=image\n"
        if self.case.launch is not None and self.claim == "none":
            return Result(125, b"", self.case.launch.encode())
        return super().launch(command)

    def observe(self, command: Command[Any]) -> Reply:
        said = {"container": "none", "claim": self.claim, "log_size": "0", "exit": "", "disk_free": "9000000"}
        origin = self.case.seen.get("origin", ORIGIN)
        said.update({key: value for key, value in self.case.seen.items() if key != "origin"})
        return origin + "".join(f"{key}={value}\n" for key, value in said.items())


def state(status: str = "exited", code: int = 0, error: str = "", *, out_of_memory: bool = False) -> str:
    """Return an answer of `docker inspect`."""
    return json.dumps({"Status": status, "ExitCode": code, "OOMKilled": out_of_memory, "Error": error})


CASES: dict[str, Case] = {
    "the commands fail": Case(seen={"exit": "3"}),
    "memory runs out for one of the job's processes": Case(
        seen={"exit": "1", "container": state(code=1, out_of_memory=True)}
    ),
    "memory runs out and the kernel takes the shell": Case(
        seen={"exit": "137", "container": state(code=137, out_of_memory=True)}
    ),
    "memory runs out and the kernel takes everything": Case(seen={"container": state(code=137, out_of_memory=True)}),
    "the disk fills up while it runs": Case(seen={"exit": "1", "disk_free": "12"}),
    "the log can't be written": Case(seen={"container": state(code=141)}),
    "the result can't be written": Case(seen={"container": state(code=0)}),
    "the result can't be written after a failure": Case(seen={"container": state(code=2)}),
    "somebody kills the container": Case(seen={"container": state(code=137)}),
    "somebody removes the container": Case(seen={"container": "none"}),
    "the machine restarts": Case(seen={"container": state(code=255), "origin": REBOOTED}),
    "Docker restarts": Case(seen={"container": state(code=137), "origin": LATER}),
    "it runs too long": Case(seen={"exit": "143"}, max_duration="2h", expired=True),
    "it is stopped": Case(seen={"exit": "143"}, stop="stop"),
    "it runs too long, and does not end": Case(seen={"container": state(code=137)}, max_duration="2h", expired=True),
    "it is stopped, and does not end": Case(seen={"container": state(code=137)}, stop="stop"),
    "it is stopped before it starts": Case(pull="", stop="stop"),
    "it is stopped while its artifacts are stored": Case(stop="stop", end=Status.DONE),
    "it is aborted": Case(seen={"exit": "137"}, stop="abort"),
    "the GPU driver fails while it runs": Case(
        seen={"exit": "1"}, gpus=(0,), probed=PROBED + "driver=No devices were found\n"
    ),
    "a GPU falls off the bus while it runs": Case(seen={"exit": "1"}, gpus=(0, 3)),
    "no NVIDIA toolkit": Case(
        launch=f'{DAEMON}could not select device driver "" with capabilities: [[gpu]].', gpus=(0,)
    ),
    "the driver is not loaded": Case(
        launch=f"{HOOK}nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown.", gpus=(0,)
    ),
    "the driver was updated": Case(
        launch=f"{HOOK}nvidia-container-cli: initialization error: nvml error: driver/library version mismatch: unknown"
        "\n\nRun 'docker run --help' for more information",
        gpus=(0,),
    ),
    "the driver fails": Case(
        launch=f"{HOOK}nvidia-container-cli: initialization error: driver error: failed to process request: unknown.",
        gpus=(0,),
    ),
    "a GPU is gone": Case(launch=f"{HOOK}nvidia-container-cli: device error: 3: unknown device: unknown.", gpus=(3,)),
    "the driver fails, in an older Docker's words": Case(
        launch=f"{DAEMON}OCI runtime create failed: container_linux.go:380: starting container process caused:"
        " process_linux.go:545: container init caused: Running hook #0:: error running hook: exit status 1, stdout: ,"
        " stderr: nvidia-container-cli: initialization error: driver error: timed out: unknown.",
        gpus=(0,),
    ),
    "podman knows no GPU": Case(
        launch="Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=0", gpus=(0,)
    ),
    "the disk is full before it starts": Case(launch="fatal: write error: No space left on device"),
    "the image has no sh": Case(launch=f'{CREATE}exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown.'),
    "its user can't be given the files": Case(launch="chown: invalid user: 'bob'"),
    "the image has no such user": Case(launch=f"{DAEMON}unable to find user bob: no matching entries in passwd file."),
    "the image is removed meanwhile": Case(launch=f"{DAEMON}No such image: box:1."),
    "Docker refuses for another reason": Case(launch=f"{DAEMON}Minimum memory limit allowed is 6MB."),
    "no such tag": Case(pull='{"message":"manifest for box:1 not found: manifest unknown: manifest unknown"}'),
    "no such repository": Case(
        pull='{"message":"pull access denied for box, repository does not exist or may require \'docker login\':'
        ' denied: requested access to the resource is denied"}'
    ),
    "nobody is logged in": Case(pull="Error response from daemon: Head https://lab/v2/box/manifests/1: no basic auth"),
    "a wrong password": Case(
        pull='{"message":"Head \\"https://lab/v2/box/manifests/1\\": unauthorized: authentication required"}',
        registry_auth=AUTH,
    ),
    "Docker Hub's limit": Case(
        pull='{"message":"toomanyrequests: You have reached your unauthenticated pull rate limit."}'
    ),
    "no route to the registry": Case(
        pull='{"message":"Get \\"https://lab/v2/\\": dial tcp 10.0.0.9:443: connect: no route to host"}'
    ),
    "no such registry": Case(
        pull='{"message":"Get \\"https://lab/v2/\\": dial tcp: lookup lab on 10.0.0.1:53: no such host"}'
    ),
    "a certificate that nobody knows": Case(
        pull='{"message":"Get \\"https://lab/v2/\\": x509: certificate signed by unknown authority"}'
    ),
    "another architecture": Case(
        pull='{"message":"no matching manifest for linux/arm64/v8 in the manifest list entries"}'
    ),
    "the disk is full while the image is unpacked": Case(
        pull='{"errorDetail":{"message":"x"},"error":"failed to register layer: write /a: no space left on device"}'
    ),
    "a registry that says something else": Case(pull='{"message":"teapot"}'),
    "a secret is deleted before it starts": Case(secrets=("TOKEN",)),
    "an artifact is missing": Case(seen={"exit": "0"}, artifacts=("out",)),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.0)
    monkeypatch.setattr(watch, "SETTLES", 0.0)
    monkeypatch.setattr(watch, "ASK_AGAIN", 0.0)


def ended(folder: Path, case: Case) -> str:
    """Return how a job ends on such a machine: status, exit code and reason."""
    world = World(folder, Failing(case))
    world.store.secrets.set("REGISTRY_PASSWORD", "wrong", "2026-01-01")
    definition = replace(world.job.definition, image="box:1", **case.definition)
    changes: dict[str, Any] = {"definition": definition, "image": "box:1", "gpus": case.gpus, "stop": case.stop}
    if case.expired or (case.stop and case.pull != ""):
        world.machine.claim = "claimed"
        changes |= {
            "status": Status.RUNNING,
            "launching": True,
            "expired": case.expired,
            "started_at": "2026-01-01T00:00:00.000Z",
        }
    if case.end:
        changes |= {"status": Status.UPLOADING, "final_status": case.end}
    world.store.jobs.change("abc", **changes)
    asyncio.run(asyncio.wait_for(world.drive().run(), 20))
    job = world.job
    world.store.close()
    assert job.finished
    return f"{job.status.value} {job.exit_code}: {job.reason_code}: {job.reason and job.reason.text}"


class Queued:
    """A job that ends in the queue, with its run, its dependency and its machine."""

    def __init__(
        self,
        *,
        job: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
        needed: Status | None = None,
        condition: Condition | None = None,
    ) -> None:
        self.job, self.run, self.needed, self.condition = job or {}, run or {}, needed, condition


BUSY = Reason(ReasonCode.RUNNER_BUSY, "box has 1 of 8 CPUs free, ann's brave-otter-7 holds 7 (started 2 h ago)")
QUEUED: dict[str, Queued] = {
    "it is stopped in the queue": Queued(job={"stop": "stop"}),
    "what it needs fails": Queued(needed=Status.FAILED),
    "what it needs is lost": Queued(needed=Status.LOST),
    "it waits for too long": Queued(
        job={
            "reason": Reason(
                ReasonCode.RUNNER_BUSY, "box has 1 of 8 CPUs free, ann's brave-otter-7 holds 7 (started 2 h ago)"
            )
        },
        run={"timeout": 90.0},
    ),
    "no machine lets dstack in": Queued(
        condition=Condition("unusable", "box lets none of the keys in that were tried", failing_since=-math.inf)
    ),
}


def ended_in_queue(folder: Path, case: Queued) -> str:
    """Return how a job ends that never had a runner."""
    world = World(folder, Machine())
    store = world.store
    queued = replace(world.job, status=Status.QUEUED, runner=None, submitted_at="2026-01-01T00:00:00.000Z", **case.job)
    before = replace(store.runs.require("run"), submitted_at="2026-01-01T00:00:00.000Z", **case.run)
    store.jobs.remove("abc")
    store.database.execute("DELETE FROM runs")
    store.runs.add(before)
    if case.needed:
        store.jobs.add(replace(queued, id="def", workflow="data", status=case.needed, exit_code=1))
        queued = replace(queued, dependencies={"data": "def"})
    store.jobs.add(queued)
    if case.condition:
        world.context.fleet.conditions["box"] = case.condition

    async def passed() -> None:
        engine = Engine(world.context)
        engine.scheduler.run()
        engine.scheduler.run()  # the first pass says why it waits

    asyncio.run(passed())
    job = world.job
    store.close()
    assert job.finished
    return f"{job.status.value} {job.exit_code}: {job.reason_code}: {job.reason and job.reason.text}"


def test_the_reasons_are_what_they_were(tmp_path: Path) -> None:
    ends = {name: ended(tmp_path / name, case) for name, case in CASES.items()}
    ends |= {name: ended_in_queue(tmp_path / name, case) for name, case in QUEUED.items()}
    said = "".join(f"{name}\n    {end}\n" for name, end in ends.items())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(said)

    assert said == GOLDEN.read_text(), "if this is meant: UPDATE_GOLDEN=1, and read the diff"


def test_a_machine_whose_gpus_fail_gets_no_more_jobs_for_them(tmp_path: Path) -> None:
    case = CASES["the driver fails"]
    ended(tmp_path, case)
    world = World(tmp_path, Failing(case))
    (machine,) = world.context.fleet.now()

    assert machine.gpu_trouble is not None
    assert "driver error: failed to process request" in machine.gpu_trouble.text
    assert "sudo reboot" in machine.gpu_trouble.text
    asyncio.run(world.context.fleet.check("box"))
    (mended,) = world.context.fleet.now()
    assert mended.gpu_trouble is None
    world.store.close()


@pytest.mark.parametrize("field", ["launch", "pull"])
def test_a_docker_that_does_not_answer_is_asked_again(tmp_path: Path, field: str) -> None:
    case = Case(seen={"exit": "0"})
    setattr(
        case, field, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    )
    world = World(tmp_path, Failing(case))
    world.store.jobs.change("abc", image="box:1")
    told: list[str] = []
    real = world.store.jobs.change

    def change(job: str, **changes: Any) -> Any:
        if changes.get("unreachable_since"):
            told.append(changes["reason"].text)
            case.launch = case.pull = None  # it is back
        return real(job, **changes)

    world.store.jobs.change = change  # type: ignore[method-assign]
    asyncio.run(asyncio.wait_for(world.drive().run(), 20))

    assert world.job.status is Status.DONE
    assert re.match(r"Docker on box has not answered since \S+Z: Cannot connect to the Docker daemon at ", told[0])
    world.store.close()
