"""Many machines: their state, an import, a server that does nothing, and the queue."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import engine_pass
import queue_pass
from measure import NotMeasuredError, Way, finished
from table import Row
from world import World

TICKS = os.sysconf("SC_CLK_TCK")


def inventory(world: World, count: int) -> Path:
    """Write an Ansible inventory of machines that all are this one, in a folder of their own each."""
    path = world.work / "hosts.ini"
    lines = [
        f"m{number} ansible_host=127.0.0.1 ansible_port={world.port} ansible_user={world.user}"
        f" ansible_ssh_private_key_file={world.identity} dstack_root={world.work}/many-{number}"
        f" dstack_docker='{' '.join(world.docker)}' dstack_fingerprint={world.fingerprint}"
        for number in range(count)
    ]
    path.write_text("[lab]\n" + "\n".join(lines) + "\n")
    return path


def imported(world: World, count: int = 20) -> Mapping[str, Way]:
    path, empty = inventory(world, count), world.work / "empty.ini"
    empty.write_text("[lab]\n")

    def cleared() -> None:
        subprocess.run(["dstack", "runners", "import", str(empty), "-y"], capture_output=True, check=False)

    return {
        f"dstack runners import, {count} machines with doctor": finished(
            ["dstack", "runners", "import", str(path)], None, cleared
        ),
        **fabric(world, count),
    }


def state(world: World, count: int = 20) -> Mapping[str, Way]:
    world.dstack("runners", "import", inventory(world, count))
    return {f"dstack runners, {count} machines": finished(["dstack", "runners"]), **fabric(world, count)}


GROUP = """
import sys
from fabric import ThreadingGroup
user, port, key, count = sys.argv[1:]
hosts = [f"{user}@127.0.0.1:{port}"] * int(count)
ThreadingGroup(*hosts, connect_kwargs={"key_filename": key}).run("true", hide=True)
"""


def fabric(world: World, count: int) -> Mapping[str, Way]:
    """Run `true` on as many machines with fabric, as a process of its own."""
    python = Path(world.rival("fab")).parent / "python"
    words = [str(python), "-c", GROUP, world.user, str(world.port), str(world.identity), str(count)]
    return {f"fabric's ThreadingGroup: true on {count}": finished(words)}


def idle(world: World, count: int = 50) -> Mapping[str, Way]:
    """How much of a core the server uses that has nothing to do but to watch its machines."""
    world.dstack("runners", "import", inventory(world, count))
    pid = json.loads(world.dstack("server", "status", "--json"))["pid"]

    def used() -> float:
        seconds, before, start = world.size(60, 5), ticks(pid), time.monotonic()
        time.sleep(seconds)
        return 100 * (ticks(pid) - before) / TICKS / (time.monotonic() - start)

    return {f"dstack's server, {count} machines": used}


def memory(world: World, count: int = 50) -> Mapping[str, Way]:
    world.dstack("runners", "import", inventory(world, count))
    pid = json.loads(world.dstack("server", "status", "--json"))["pid"]
    return {f"dstack's server, {count} machines": lambda: resident(pid)}


def ticks(pid: int) -> int:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident(pid: int) -> float:
    """The memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


def scheduling(world: World) -> Mapping[str, Way]:
    """The processor time of a pass, in each situation."""

    def one(make: queue_pass.Made) -> Way:
        case = make(random.Random(1))
        return lambda: queue_pass.milliseconds(case)

    server = engine_pass.Pass(world.work / "queue")
    whole = {"the server's whole pass, none free": server.milliseconds}
    return {**whole, **{title: one(make) for title, make in queue_pass.cases().items()}}


def rival_start(world: World) -> Mapping[str, Way]:
    """`--version` of each program: what starting costs."""
    ways = {"dstack": finished([world.program("dstack"), "--version"])}
    for name in ("guild", "dvc", "fab", "ansible", "pyinfra"):
        try:
            ways[name] = finished([world.rival(name), "--version"])
        except NotMeasuredError:
            continue
    return ways


FABRIC = "fabric on as many, cold"
ROWS = [
    Row("state", "state of 20 machines, warm", FABRIC, "0.12 s", state),
    Row("import", "import of 20 machines with doctor", FABRIC, "1.5 s", imported),
    Row("idle-cpu", "an idle server with 50 machines", "-", "1", idle, "%"),
    Row("idle-memory", "an idle server with 50 machines", "-", "80", memory, "MB"),
    Row("scheduling", "a pass over 10,000 jobs on 1,000 machines", "itself", "20", scheduling, "ms"),
    Row("version", "--version", "guild", "-", rival_start),
]
