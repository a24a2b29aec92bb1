"""What machines and jobs use."""

from __future__ import annotations

from msgspec import Struct


class GpuUse(Struct, frozen=True, kw_only=True):
    """One GPU now: `percent` of the time that it was busy, memory in bytes; `others` are processes beside dstack's
    jobs, as `name (pid)`."""

    index: int
    percent: int | None = None
    memory_used: int = 0
    others: tuple[str, ...] = ()


class Use(Struct, frozen=True, kw_only=True):
    """A machine now: `cpu` in percent of all its processors (None until there are two samples), memory in bytes, by
    whoever it is used."""

    cpu: float | None
    memory_used: int
    gpus: tuple[GpuUse, ...] = ()


class Point(Struct, frozen=True, kw_only=True):
    """A job at one moment: `time` in seconds since the epoch, `cpu` in processors, memory in bytes, `gpu` the percent
    that its GPUs were busy on average."""

    time: int
    cpu: float
    memory: int
    gpu: float | None = None
    gpu_memory: int | None = None


class JobMetrics(Struct, frozen=True, kw_only=True):
    """How a job used its machine over time."""

    job: str
    workflow: str
    runner: str | None
    points: list[Point]
