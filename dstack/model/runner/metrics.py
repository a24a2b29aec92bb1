"""The resource usage of runners and jobs."""

from __future__ import annotations

from msgspec import Struct


class GpuUse(Struct, frozen=True, kw_only=True):
    """The current usage of one GPU: `percent` of the time that it was busy, memory in bytes. `others` are processes
    that are not dstack jobs, as `name (pid)`."""

    index: int
    percent: int | None = None
    memory_used: int = 0
    others: tuple[str, ...] = ()


class Use(Struct, frozen=True, kw_only=True):
    """The current usage of a runner, not only by dstack: `cpu` in percent of all CPUs, None until there are two
    samples; memory in bytes."""

    cpu: float | None
    memory_used: int
    gpus: tuple[GpuUse, ...] = ()


class Point(Struct, frozen=True, kw_only=True):
    """The usage of a job at one time: `time` in seconds since the epoch, `cpu` in CPUs, memory in bytes, `gpu` as the
    average percent that its GPUs were busy."""

    time: int
    cpu: float
    memory: int
    gpu: float | None = None
    gpu_memory: int | None = None


class JobMetrics(Struct, frozen=True, kw_only=True):
    job: str
    workflow: str
    runner: str | None
    points: list[Point]
