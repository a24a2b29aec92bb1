"""Samples the current load of a machine and of the jobs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dstack.commands.command import Command, Result
from dstack.commands.machine import amd
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.metrics import GpuUse
from dstack.model.text.untrusted import NAME, decimal, whole
from dstack.render import script


@dataclass(frozen=True)
class Sample:
    """Counters at one moment. `uptime` is in seconds; `busy` and `all` are processor time since boot, in ticks, of all
    processors together; memory is in bytes; `jobs` maps attempts to processor seconds and bytes of memory; `containers`
    maps attempts to container ids; `cost` is the processor seconds that the sample took."""

    uptime: float
    cpus: int
    busy: int
    all: int
    memory: int
    memory_used: int
    gpus: tuple[GpuUse, ...]
    jobs: dict[str, tuple[float, int]]
    containers: dict[str, str]
    cost: float


def sample(context: HostContext, containers: Mapping[str, str] | None = None, cpus: int = 0) -> Command[Sample]:
    """Take a sample in one round trip. Pass the `containers` of an earlier sample if no others matter, to avoid asking
    Docker, and `cpus` to avoid counting processors."""
    known = "\n".join(f"{number} {container(attempt)}" for attempt, number in (containers or {}).items())
    text = script("machine/sample", context, containers=known, ask=containers is None, cpus=cpus)
    return Command("sampling the machine", text, lambda result: _sample(result, cpus))


def _sample(result: Result, cpus: int) -> Sample:
    said = result.values("cpu", "memory", "uptime", "cost")
    apps = [app for line in result.each("app") if len(app := line.split(",", 4)) == 5]
    busy, everything = map(whole, said["cpu"].split())
    memory, available = (whole(word) * 1024 for word in said["memory"].split())
    nvidia = [_gpu(line, apps) for line in result.each("gpu")]
    return Sample(
        uptime=decimal(said["uptime"]),
        cpus=cpus or whole(said["cpus"]),
        busy=busy,
        all=everything,
        memory=memory,
        memory_used=memory - available,
        gpus=(*nvidia, *amd.uses(said.get("amd", ""), amd.behind(gpu.index for gpu in nvidia))),
        jobs=dict(map(_job, result.each("job"))),
        containers=dict(map(_container, result.each("container"))),
        cost=whole(said["cost"]) / 100,
    )


def _gpu(text: str, apps: list[list[str]]) -> GpuUse:
    """Parse a line of nvidia-smi: index, UUID, busy percent, used and total MiB; each may be [N/A]."""
    index, uuid, percent, used, _ = (part.strip() for part in text.split(","))
    others = [app for app in apps if app[0].strip() == uuid and app[3] == "others"]
    return GpuUse(
        index=whole(index),
        percent=whole(percent) if percent.isdecimal() else None,
        memory_used=whole(used) * 2**20 if used.isdecimal() else 0,
        others=tuple(f"{app[4].strip().rpartition('/')[2][:NAME]} ({app[1].strip()[:NAME]})" for app in others),
    )


def _container(text: str) -> tuple[str, str]:
    number, name = text.split()
    return name.removeprefix(container("")), number


def _job(text: str) -> tuple[str, tuple[float, int]]:
    name, time, memory = text.split()
    held = 0 if memory.startswith("-") else whole(memory)  # the page cache is counted a moment later
    return name.removeprefix(container("")), (whole(time) / 1e6, held)
