"""What the vendors' tools print: several versions, many kinds of cards, broken drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.commands import amd
from dstack.model.metrics import GpuUse
from dstack.model.runner import Address, Gpu, Runner
from tests.unit.commands.test_probe import facts

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
        Gpu(0, "Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]", 17163091968, "0x9246", vendor="amd"),
        Gpu(1, "Raphael", 67108864, "", vendor="amd"),
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


def test_amd_gpus_are_shown_and_not_given_to_jobs(tmp_path: Path) -> None:
    said = facts(amd=AMD_LIST)

    assert [gpu.vendor for gpu in said.gpus] == ["amd"]
    assert [finding.name for finding in said.findings] == ["gpu-amd"]
    assert Runner(name="m", address=Address(), facts=said).gpu_indexes == ()
