"""What a job needs from a runner, in numbers."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from dstack.model.project.workflow import GpuRequest, Resources
from dstack.model.runner.runner import Gpu
from dstack.model.text.units import SOLD, disk_bytes, memory_bytes, memory_words, size_words


class Ask(Struct, frozen=True, cache_hash=True):
    """What a job needs: `gpus` whole GPUs of `gpu_vendor`, each with at least `gpu_memory` bytes and `gpu_name` in its
    name; `cpu` in CPUs; sizes in bytes. 0 and "" mean no requirement, but without `gpu_name` and `gpu_vendor` the GPUs
    must be NVIDIA's."""

    gpus: int = 0
    gpu_name: str = ""
    gpu_memory: int = 0
    cpu: float = 0
    memory: int = 0
    disk: int = 0
    gpu_vendor: str = ""

    @property
    def shares(self) -> bool:
        """Whether it reserves nothing, and so shares the runner with other such jobs."""
        return not (self.gpus or self.cpu or self.memory)

    def takes(self, gpu: Gpu) -> bool:
        vendor = self.gpu_vendor or ("" if self.gpu_name else "nvidia")
        if vendor and vendor != gpu.vendor:
            return False
        return _suits(self.gpu_name, self.gpu_memory, gpu.name, gpu.memory)

    @property
    def gpu_kind(self) -> tuple[str, int, str]:
        """A key that is equal for requests that the same GPUs meet."""
        return self.gpu_name, self.gpu_memory, self.gpu_vendor

    @property
    def gpu_words(self) -> str:
        """`2 A100 GPUs of 40 GB`."""
        vendor = {"amd": "AMD ", "nvidia": "NVIDIA "}.get(self.gpu_vendor, "")
        name = f"{vendor}{self.gpu_name} " if self.gpu_name else vendor
        memory = f" of {memory_words(self.gpu_memory)}" if self.gpu_memory else ""
        return f"{self.gpus} {name}{'GPU' if self.gpus == 1 else 'GPUs'}{memory}"

    @property
    def words(self) -> str:
        """`2 GPUs of 40 GB, 4 CPUs and 16 GB of memory`; "" for nothing."""
        needs = {
            self.gpu_words: self.gpus,
            f"{self.cpu:g} {'CPU' if self.cpu == 1 else 'CPUs'}": self.cpu,
            f"{memory_words(self.memory)} of memory": self.memory,
            f"{size_words(self.disk)} of disk": self.disk,
        }
        *others, last = [words for words, amount in needs.items() if amount] or [""]
        return f"{', '.join(others)} and {last}" if others else last


NOTHING = Ask()


@lru_cache(maxsize=1000)
def ask_of(resources: Resources) -> Ask:
    gpu = resources.gpu if isinstance(resources.gpu, GpuRequest) else GpuRequest(count=resources.gpu)
    return Ask(
        gpus=gpu.count,
        gpu_name=gpu.name or "",
        gpu_memory=memory_bytes(gpu.memory) if gpu.memory else 0,
        cpu=float(resources.cpu or 0),
        memory=memory_bytes(resources.memory) if resources.memory else 0,
        disk=disk_bytes(resources.disk) if resources.disk else 0,
        gpu_vendor=gpu.vendor or "",
    )


def with_gpus(resources: Resources, count: int) -> Resources:
    if isinstance(resources.gpu, GpuRequest):
        return replace(resources, gpu=replace(resources.gpu, count=count))
    return replace(resources, gpu=count)


@lru_cache(maxsize=10_000)
def _suits(name: str, memory: int, has_name: str, has_memory: int) -> bool:
    """Whether a GPU has this name, in which `a100-sxm4` and `A100 SXM4` are the same, and enough memory."""
    wanted, actual = ("".join(filter(str.isalnum, each.lower())) for each in (name, has_name))
    return wanted in actual and has_memory >= memory * SOLD
