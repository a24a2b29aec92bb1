"""What a machine's answers mean, and what to type next."""

from __future__ import annotations

import pytest

from dstack.commands.command import Result
from dstack.commands.machine.probe import probe, used
from dstack.errors import CommandError
from dstack.model.runner.runner import Facts, Gpu

GOOD = {
    "machine": "m",
    "user": "ann",
    "kernel": "6.1",
    "cpus": "8",
    "memory": "1024",
    "folder": "/home/ann",
    "writable": "yes",
    "disk_free": "20971520",
    "git": "2.39.5",
    "client": "Docker version 28.2.2, build e6534b4 ",
    "answers": "yes",
    "server": "20.10.24",
}


def facts(docker: str = "docker", more: str = "", **changes: str | None) -> Facts:
    said = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    text = "".join(f"{key}={value}\n" for key, value in said.items()) + more
    return probe("~/.dstack-host", docker).parse(Result(0, text.encode(), b""))


def test_a_good_machine() -> None:
    assert facts() == Facts(
        machine="m",
        user="ann",
        cpus=8,
        memory=2**20,
        disk_free=20 * 2**30,
        docker="20.10.24",
        git="2.39.5",
        kernel="6.1",
    )


def test_gpus() -> None:
    lines = "gpu=0, NVIDIA A100-SXM4-40GB, 40960, GPU-1\ngpu=1, NVIDIA GB10, [N/A], GPU-2\n"

    assert facts(more=lines).gpus == (
        Gpu(0, "NVIDIA A100-SXM4-40GB", 40 * 2**30, "GPU-1"),
        Gpu(1, "NVIDIA GB10", 0, "GPU-2"),
    )


def test_podman_says_its_own_version() -> None:
    said = facts("podman", client="podman version 4.3.1 ", server="")

    assert (said.docker, said.problem) == ("4.3.1", None)


NO_SOCKET = "Got permission denied while trying to connect to the Docker daemon socket: connect: permission denied"
TROUBLE: list[tuple[str, dict[str, str | None], str, str, str]] = [
    ("docker", {"client": "none"}, "", "'docker' is not installed", "apt-get install docker.io"),
    ("podman", {"client": "none"}, "", "'podman' is not installed", "apt-get install podman"),
    (
        "docker",
        {"answers": None, "refusal": NO_SOCKET},
        "",
        "ann is not allowed to use Docker",
        "sudo usermod -aG docker ann",
    ),
    ("docker", {"answers": None, "refusal": "Cannot connect"}, "", "Cannot connect", "sudo systemctl start docker"),
    ("docker", {"answers": None, "refusal": ""}, "", "no answer within 20 seconds", "sudo systemctl start docker"),
    ("sudo -n docker", {"answers": None, "refusal": "sudo: a password is required"}, "", "password", "usermod"),
    ("docker", {"git": None}, "", "git is not installed", "apt-get install git"),
    ("docker", {"git": "2.19.9"}, "", "git 2.19.9 is too old", "upgrade git"),
    ("docker", {"git": "1.8.3.1"}, "", "git 1.8.3.1 is too old", "upgrade git"),
    ("docker", {"writable": "no", "folder": "/data"}, "", "can't write to /data", "sudo chown ann /data"),
    ("docker", {}, "missing=flock\n", "'flock' is not installed", "apt-get install util-linux"),
    ("docker", {}, "missing=sha256sum\nmissing=tar\n", "'sha256sum' is not installed", "apt-get install coreutils"),
]


@pytest.mark.parametrize(("docker", "changes", "more", "problem", "fix"), TROUBLE)
def test_what_is_in_the_way(docker: str, changes: dict[str, str | None], more: str, problem: str, fix: str) -> None:
    said = facts(docker, more, **changes)

    assert problem in (said.problem or "")
    assert fix in (said.fix or "")


@pytest.mark.parametrize("git", ["2.20.0", "2.20", "3.0", "2.39.3.windows.1"])
def test_git_is_new_enough(git: str) -> None:
    assert facts(git=git).problem is None


def test_an_answer_that_is_not_understood() -> None:
    with pytest.raises(CommandError, match="the host's answer can't be parsed"):
        facts(cpus="many")
    with pytest.raises(CommandError, match="lacks machine"):
        facts(machine=None)


GPUS = (Gpu(index=0, uuid="GPU-a"), Gpu(index=3, uuid="GPU-b"))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], {}),
        ([("app", "GPU-b,42,bob,,/usr/bin/python3")], {3: "by bob (python3, process 42)"}),
        ([("app", "GPU-b,42,,other,a,b")], {3: "by somebody (a,b, process 42)"}),
        ([("app", "GPU-b,42,root,mine,python"), ("gpu_memory", "GPU-b, 30000")], {}),
        (
            [("app", "GPU-b,42,root,mine,python"), ("app", "GPU-b,43,bob,,vi"), ("app", "GPU-b,44,eve,,x")],
            {3: "by bob (vi, process 43)"},
        ),
        (
            [("gpu_memory", "GPU-a, 512"), ("gpu_memory", "GPU-b, 513")],
            {3: "by an unknown process (513 MB)"},
        ),
        ([("gpu_memory", "0, A100, 40960, GPU-a"), ("gpu_memory", "GPU-a, [N/A]"), ("app", "GPU-x,1,a,,b")], {}),
    ],
)
def test_who_else_uses_a_gpu(pairs: list[tuple[str, str]], expected: dict[int, str]) -> None:
    answer = "".join(f"{key}={value}\n" for key, value in pairs)

    assert used(GPUS, Result(0, answer.encode(), b""), "mine") == expected
