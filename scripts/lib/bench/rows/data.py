"""Logs and artifacts."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from measure import NotMeasuredError, Way, finished, shell
from table import Row
from world import BUCKET, World

LOG = "workflows:\n  - {{name: log, image: {image}, commands: ['yes a line of the log of a job | head -c {size}']}}\n"
MAKE = "workflows:\n  - {{name: make, image: {image}, commands: ['{command}'], artifacts: [out]}}\n"
BOTH = """workflows:
  - {{name: make, image: {image}, commands: ['{command}'], artifacts: [out]}}
  - {{name: use, image: {image}, commands: [ls out], depends-on: {{workflows: [make], repo: {{include: [other]}}}}}}
"""
ONE = "mkdir out && head -c {size} /dev/urandom > out/file"
MANY = "mkdir out && for i in $(seq $(({size} / 10000))); do head -c 10000 /dev/urandom >out/$i; done"


def tail(world: World) -> Mapping[str, Way]:
    size = world.size(500_000_000, 5_000_000)
    root = world.project("log", LOG.format(image=world.image, size=size))
    name = submitted(world, root, "log")
    remote = world.work / "log.txt"
    with remote.open("wb") as file:
        subprocess.run(["sh", "-c", f"yes a line of the log of a job | head -c {size}"], stdout=file, check=True)
    return {
        "dstack logs --tail 5": finished(["dstack", "logs", name, "--tail", "5"]),
        "ssh HOST tail -n 5": finished([*world.login(), "tail", "-n", "5", str(remote)]),
        "dstack logs --grep, all of it": finished(["dstack", "logs", name, "--grep", "nothing"]),
    }


def submitted(world: World, root: Path, workflow: str) -> str:
    """Run a workflow to its end, and return the run's name."""
    words = ["dstack", "run", workflow, "-d", "-q", "--runner", world.runner()]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    name = done.stdout.strip()
    if done.returncode or subprocess.run(["dstack", "wait", name], capture_output=True, check=False).returncode:
        raise NotMeasuredError(
            f"the run failed: {done.stderr[-300:]} {world.dstack('logs', name)[-300:] if name else ''}"
        )
    return name


def stored(world: World, kind: str) -> tuple[Path, Path]:
    """Use the S3 server as the storage, and return a project that makes artifacts, and a copy of them on this disk."""
    world.dstack("server", "stop")
    url = world.s3
    world.dstack("config", "--storage", f"s3://{BUCKET}/{kind}", "--endpoint-url", url)
    size = world.size({"one": 10**9, "many": 50 * 10**6}[kind], 10**6)
    command = {"one": ONE, "many": MANY}[kind].format(size=size)
    root = world.project(f"artifacts-{kind}", MAKE.format(image=world.image, command=command))
    copy = world.work / f"copy-{kind}"
    if not copy.exists():
        copy.mkdir()
        subprocess.run(["sh", "-c", command], cwd=copy, check=True)
    return root, copy / "out"


def upload(world: World, kind: str) -> Mapping[str, Way]:
    """From the container's end to the run's, with hashes, upload and manifest; against a copy of the same size. What is
    sent is new each time, because content that is stored already would not be sent."""
    root, copy = stored(world, kind)
    rclone, number = world.rclone(), iter(range(10**6))

    def by_rclone() -> float:
        return finished([*rclone, "copy", str(copy), f"bench:{BUCKET}/rclone/{kind}{next(number)}"])()

    return {"dstack, from exit to done": collected(world, root), "rclone copy": by_rclone}


def collected(world: World, root: Path) -> Way:
    """A way that makes artifacts, and costs the seconds from the container's exit to the job's end."""

    def run() -> float:
        events = json.loads(world.dstack("events", submitted(world, root, "make"), "--json"))
        times = {each["kind"]: datetime.fromisoformat(each["time"].replace("Z", "+00:00")) for each in events}
        return (times["job.done"] - times["job.uploading"]).total_seconds()

    return run


def download(world: World, kind: str) -> Mapping[str, Way]:
    root, copy = stored(world, kind)
    rclone, name = world.rclone(), submitted(world, root, "make")
    subprocess.run([*rclone, "copy", str(copy), f"bench:{BUCKET}/rclone/down-{kind}"], check=True, capture_output=True)
    target = world.work / f"down-{kind}"

    def emptied() -> None:
        shutil.rmtree(target, ignore_errors=True)

    ours = ["dstack", "artifacts", "download", name, "-o", str(target)]
    theirs = [*rclone, "copy", f"bench:{BUCKET}/rclone/down-{kind}", str(target)]
    return {
        "dstack artifacts download": finished(ours, None, emptied),
        "rclone copy": finished(theirs, None, emptied),
    }


def dependent(world: World) -> Mapping[str, Way]:
    """A run of a workflow whose dependency is cached and lies on the machine, against the copy that it saves."""
    size = world.size(2 * 10**9, 10**7)
    root = world.project("dependent", BOTH.format(image=world.image, command=ONE.format(size=size)))
    submitted(world, root, "use")
    copy = world.work / "copied"
    copy.mkdir()
    with (copy / "file").open("wb") as file:
        subprocess.run(["head", "-c", str(size), "/dev/urandom"], stdout=file, check=True)
    target = world.work / "copied-again"
    return {
        "dstack run, artifacts on the machine": finished(["dstack", "run", "use", "--runner", world.runner()], root),
        "cp -r": finished(shell(f"rm -rf {target} && cp -r {copy} {target}")),
        "cp -r --reflink=auto": finished(shell(f"rm -rf {target} && cp -r --reflink=auto {copy} {target}")),
    }


ROWS = [
    Row("tail", "logs --tail 5 of 500 MB", "ssh HOST tail", "0.5", tail),
    Row("up-one", "one file of 1 GB, host to S3", "rclone copy", "1.1", partial(upload, kind="one")),
    Row("up-many", "5,000 files of 10 KB, host to S3", "rclone copy", "0.8", partial(upload, kind="many")),
    Row("down-one", "download of one file of 1 GB", "rclone copy", "0.8", partial(download, kind="one")),
    Row("down-many", "download of 5,000 files of 10 KB", "rclone copy", "1.0", partial(download, kind="many")),
    Row("dependent", "a dependent of 2 GB on the same machine", "cp -r", "0.1 with reflinks", dependent),
]
