"""The output of the vendors' tools: several versions, many cards, broken drivers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dstack.commands.command import Result
from dstack.commands.machine import amd
from dstack.commands.machine.probe import probe
from dstack.model.job.resources import Ask
from dstack.model.runner.metrics import GpuUse
from dstack.model.runner.runner import Address, Gpu, Runner
from tests.unit.commands.machine.test_probe import facts

ROCM = """WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status
{"card0": {"Unique ID": "0x9246", "GPU use (%)": "3", "VRAM Total Memory (B)": "17163091968", "VRAM Total Used Memory \
(B)": "692142080", "Card Series": "Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]", "Card Model": "0x73bf"}, \
"card1": {"Unique ID": "N/A", "GPU use (%)": "0", "VRAM Total Memory (B)": "67108864", "VRAM Total Used Memory (B)": \
"26079232", "Card series": "Raphael"}, "system": {"Driver version": "6.7.0"}}
"""
AMD_LIST = """[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X", "asic_serial": "0x6F1F"}, \
"vram": {"type": "HBM3", "size": {"value": 196592, "unit": "MB"}}, "driver": {"version": "6.10.5"}}]"""
AMD_WRAPPED = """{ "gpu_data": [ { "gpu": 3, "asic": { "market_name": "AMD Radeon PRO W7800", "asic_serial": "N/A" }, \
"vram": { "size": { "value": 34359738368, "unit": "B" } } } ] }"""
AMD_METRIC = """{"gpu_data": [{"gpu": 0, "usage": {"gfx_activity": {"value": 97, "unit": "%"}}, \
"mem_usage": {"used_vram": {"value": 1024, "unit": "MB"}}}, \
{"gpu": 1, "usage": {"gfx_activity": "N/A"}, "mem_usage": {"used_vram": "N/A"}}]}"""


def test_rocm_smi() -> None:
    assert amd.gpus(ROCM) == (
        Gpu(0, "Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]", 17163091968, "0x9246", "6.7.0", vendor="amd"),
        Gpu(1, "Raphael", 67108864, "", "6.7.0", vendor="amd"),
    )
    assert amd.uses(ROCM) == (
        GpuUse(index=0, percent=3, memory_used=692142080),
        GpuUse(index=1, percent=0, memory_used=26079232),
    )


def test_amd_smi_of_two_versions() -> None:
    assert amd.gpus(AMD_LIST) == (Gpu(0, "AMD Instinct MI300X", 196592 * 2**20, "0x6F1F", "6.10.5", "amd"),)
    assert amd.gpus(AMD_WRAPPED) == (Gpu(3, "AMD Radeon PRO W7800", 32 * 2**30, vendor="amd"),)
    assert amd.uses(AMD_METRIC) == (
        GpuUse(index=0, percent=97, memory_used=2**30),
        GpuUse(index=1, percent=None, memory_used=0),
    )


@pytest.mark.parametrize("text", ["", "ERROR: no GPU", "{broken", "[1, 2]", '{"card": 5}', "null"])
def test_no_amd_gpu(text: str) -> None:
    assert amd.gpus(text) == amd.uses(text) == ()


def test_nvidia_with_and_without_the_driver() -> None:
    said = facts(more="gpu=0, NVIDIA H100 80GB HBM3, 81559, GPU-1, 550.90.07\ngpu=1, Tesla K80, 11441, GPU-2\n")

    assert said.gpus == (
        Gpu(0, "NVIDIA H100 80GB HBM3", 81559 * 2**20, "GPU-1", "550.90.07"),
        Gpu(1, "Tesla K80", 11441 * 2**20, "GPU-2"),
    )


@pytest.mark.parametrize(
    "words",
    [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
        "NVIDIA driver is installed and running.",
        "Failed to initialize NVML: Driver/library version mismatch NVML library version: 550.90",
        "No devices were found",
    ],
)
def test_a_broken_driver_is_a_finding_and_not_a_gpu(words: str) -> None:
    said = facts(driver=words)

    assert said.gpus == ()
    assert [finding.what for finding in said.findings] == [f"nvidia-smi fails: {words}"]


def test_an_amd_gpu_without_a_device_is_shown_and_not_given_to_jobs() -> None:
    said = facts(amd=AMD_LIST)

    assert [gpu.vendor for gpu in said.gpus] == ["amd"]
    assert [finding.what for finding in said.findings] == ["/dev/dri has no device for AMD GPU 0"]
    assert Runner(name="m", address=Address(), facts=said).gpu_indexes == ()


BUS = """[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI210"}, "bus": {"bdf": "0000:43:00.0"}}, \
{"gpu": 1, "asic": {"market_name": "AMD Instinct MI210"}, "bus": {"bdf": "0000:03:00.0"}}]"""
ROCM_BUS = """{"card0": {"Card Series": "A", "PCI Bus": "0000:43:00.0"}, \
"card1": {"Card Series": "B", "PCI Bus": "0000:03:00.0"}}"""


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """The kernel's files for two AMD GPUs, the second used by this process, and for an Intel GPU."""
    cards = {"renderD128": ("0000:03:00.0", "0x1002"), "renderD129": ("0000:43:00.0", "0x1002")}
    for node, (at, vendor) in {**cards, "renderD130": ("0000:00:02.0", "0x8086")}.items():
        device = tmp_path / "sys/devices" / at
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "sys/class/drm" / node).mkdir(parents=True)
        (tmp_path / "sys/class/drm" / node / "device").symlink_to(device)
    kfd = tmp_path / "sys/class/kfd/kfd"
    for number, (known, minor) in enumerate([(0, 0), (111, 128), (222, 129)]):
        (kfd / f"topology/nodes/{number}").mkdir(parents=True)
        (kfd / f"topology/nodes/{number}/gpu_id").write_text(f"{known}\n")
        (kfd / f"topology/nodes/{number}/properties").write_text(f"simd_count 1\ndrm_render_minor {minor}\n")
    (kfd / f"proc/{os.getpid()}").mkdir(parents=True)
    (kfd / f"proc/{os.getpid()}/vram_111").write_text("0\n")
    (kfd / f"proc/{os.getpid()}/vram_222").write_text("4096\n")
    return tmp_path


@pytest.mark.parametrize(("tool", "answer"), [("amd-smi", BUS), ("rocm-smi", ROCM_BUS)])
def test_an_amd_gpu_is_known_by_its_device_and_left_alone_where_somebody_uses_it(
    kernel: Path, tool: str, answer: str
) -> None:
    command = probe("~/.dstack-host", "true", sys=f"{kernel}/sys", dev=f"{kernel}/dev")
    (kernel / tool).write_text(f"#!/bin/sh\ncat << 'END'\n{answer}\nEND\n")
    (kernel / tool).chmod(0o755)
    environment = {**os.environ, "PATH": f"{kernel}:{os.environ['PATH']}"}

    done = subprocess.run(["sh", "-c", command.script], env=environment, capture_output=True, check=False)
    said = command.parse(Result(done.returncode, done.stdout, done.stderr))

    assert [(gpu.index, gpu.node) for gpu in said.gpus] == [(0, "renderD129"), (1, "renderD128")]
    assert Runner(name="m", address=Address(), facts=said).gpu_indexes == (0, 1)
    assert not [finding for finding in said.findings if finding.name == "gpu-amd"]
    (whose,) = said.used.items()
    assert whose[0] == 0
    assert whose[1].endswith(f", process {os.getpid()})")


def test_gpus_of_two_vendors_have_indexes_of_their_own() -> None:
    more = "gpu=0, Tesla T4, 15360, GPU-1\ngpu=1, Tesla T4, 15360, GPU-2\nrender=renderD128 0000:43:00.0\n"

    said = facts(more=more, amd=BUS)

    assert [(gpu.index, gpu.vendor, gpu.node) for gpu in said.gpus] == [
        (0, "nvidia", ""),
        (1, "nvidia", ""),
        (2, "amd", "renderD128"),
        (3, "amd", ""),
    ]
    assert Runner(name="m", address=Address(), facts=said).gpu_indexes == (0, 1, 2)


@pytest.mark.parametrize(
    ("ask", "takes"),
    [
        (Ask(1), "nvidia"),
        (Ask(1, gpu_vendor="nvidia"), "nvidia"),
        (Ask(1, gpu_vendor="amd"), "amd"),
        (Ask(1, gpu_name="MI210"), "amd"),
        (Ask(1, gpu_name="MI210", gpu_vendor="nvidia"), None),
        (Ask(1, gpu_memory=10 * 2**30), "nvidia"),
    ],
)
def test_who_names_neither_model_nor_vendor_means_nvidia(ask: Ask, takes: str | None) -> None:
    gpus = [Gpu(0, "Tesla T4", 2**34), Gpu(1, "AMD Instinct MI210", 2**36, vendor="amd", node="renderD128")]

    assert [gpu.vendor for gpu in gpus if ask.takes(gpu)] == ([takes] if takes else [])
