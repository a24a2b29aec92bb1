"""What samples of a machine's counters mean."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dstack.commands.command import Result
from dstack.commands.machine.sample import Sample, sample
from dstack.errors import CommandError
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.metrics import GpuUse

GOOD = """cpus=8
cpu=100 1000
memory=1000 400
uptime=5000.25
cost=13
"""


def parsed(more: str = "", text: str = GOOD) -> Sample:
    return sample(HostContext(HostLayout("~/d", "", "s"))).parse(Result(0, (text + more).encode(), b""))


def test_a_machine_without_gpus_and_jobs() -> None:
    said = parsed()

    assert (said.busy, said.all, said.cpus, said.uptime) == (100, 1000, 8, 5000.25)
    assert (said.memory, said.memory_used) == (1000 * 1024, 600 * 1024)
    assert said.cost == pytest.approx(0.13)
    assert (said.gpus, said.jobs) == ((), {})


def test_jobs_gpus_and_who_else_uses_them() -> None:
    said = parsed(
        "container=0123abc dstack-j1-2\n"
        "job=dstack-j1-2 1500000 2048\n"
        "gpu=0, GPU-aaa, 97, 30000, 40960\n"
        "gpu=1, GPU-bbb, [N/A], [N/A], [N/A]\n"
        "app=GPU-aaa, 41, 1000,dstack, python\n"
        "app=GPU-aaa, 42, 2000,others, /usr/bin/blender\n"
        "app=GPU-bbb, 43, [N/A],others, [Not Found]\n"
    )

    assert said.jobs == {"j1-2": (1.5, 2048)}
    assert said.containers == {"j1-2": "0123abc"}
    assert said.gpus == (
        GpuUse(index=0, percent=97, memory_used=30000 * 2**20, others=("blender (42)",)),
        GpuUse(index=1, percent=None, memory_used=0, others=("[Not Found] (43)",)),
    )


def test_an_answer_that_is_not_understood() -> None:
    with pytest.raises(CommandError, match="the host's answer can't be parsed"):
        parsed(text=GOOD.replace("cpu=100 1000", "cpu=many"))


def test_docker_is_asked_only_for_what_is_not_known(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho 0123abc dstack-j1\n")
    docker.chmod(0o755)
    context = HostContext(HostLayout("~/d", "", "s"), str(docker))

    def taken(containers: dict[str, str] | None) -> Sample:
        command = sample(context, containers)
        done = subprocess.run(["sh", "-c", command.script], capture_output=True, check=False)
        return command.parse(Result(done.returncode, done.stdout, done.stderr))

    assert taken(None).containers == {"j1": "0123abc"}
    assert taken({"j1": "0123abc", "j2": "4567def"}).containers == {"j1": "0123abc", "j2": "4567def"}
    assert taken({}).containers == {}
    assert (tmp_path / "asked").read_text() == "asked\n"
