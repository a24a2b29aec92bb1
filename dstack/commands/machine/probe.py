"""Probes a machine: its resources, and what keeps jobs from running there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dstack.commands.command import Command, Result
from dstack.commands.machine import amd
from dstack.commands.machine.doctor import Answers, findings
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Facts, Gpu
from dstack.model.text.units import memory_words
from dstack.model.text.untrusted import MESSAGE, NAME, decimal, whole
from dstack.render import script

IDLE = 512
"""MiB that the driver may allocate on an unused GPU."""
_TROUBLE = re.compile(r"\[(?!N/A|Not Supported).*]")
"""What nvidia-smi prints in place of a value when the GPU fails, and not when the GPU lacks that value."""
MACHINE = re.compile("[0-9a-z]{1,64}")
"""The name of a machine (templates/host/lib/prelude.sh.j2)."""
ANSWERED = ("machine", "user", "kernel", "cpus", "memory", "folder", "writable", "disk_free")


def probe(
    root: str,
    docker: str,
    server: str = "",
    *,
    thorough: bool = False,
    declared: int | None = None,
    sys: str = "/sys",
    dev: str = "/dev",
) -> Command[Facts]:
    """Ask a machine everything in one round trip, without changing it. Takes at most 90 seconds, or 150 with GPUs.
    `thorough` also tests whether a container gets the GPUs: as many as are `declared`, or those that are found. GPUs
    that only jobs of `server` use count as free."""
    context = HostContext(HostLayout(root, machine="", server="probe"), docker, sys=sys, dev=dev)
    thorough = thorough and declared != 0
    indexes = tuple(range(declared or 0))
    body = script("machine/probe", context, podman=context.podman, thorough=thorough, declared=indexes)
    return Command("probing the machine", body, lambda result: _facts(context, result, server, declared or 0))


def _facts(context: HostContext, result: Result, server: str, declared: int) -> Facts:
    amd_answer = result.values().get("amd", "")
    said = result.values(*ANSWERED, longest=MESSAGE)
    if not MACHINE.fullmatch(said["machine"]):
        raise ValueError(f"{said['machine'][:NAME]!r} is not the name of a machine")
    split = _split(result.each("mig"))
    nvidia = tuple(_gpu(line, split) for line in result.each("gpu"))
    nodes = {at: node for node, _, at in (line.partition(" ") for line in result.each("render"))}
    gpus = nvidia + amd.gpus(amd_answer, nodes, amd.behind(gpu.index for gpu in nvidia))
    return Facts(
        machine=said["machine"],
        boot=said.get("boot", "")[:NAME],
        booted=whole(said.get("booted") or "0"),
        engine=said.get("engine", "")[:NAME],
        root=said.get("root", "")[:MESSAGE],
        user=said["user"][:NAME],
        cpus=whole(said["cpus"]),
        memory=whole(said["memory"]) * 1024,
        disk_free=whole(said["disk_free"]) * 1024,
        disk_total=whole(said.get("disk_total") or "0") * 1024,
        load=decimal(said.get("load") or "0"),
        memory_free=whole(said.get("memory_free") or "0") * 1024,
        gpus=gpus,
        used=used(gpus, result, server),
        docker=_docker_version(said)[:NAME],
        git=said.get("git", "")[:NAME],
        kernel=said["kernel"][:NAME],
        clock=whole(said.get("clock", "0")),
        findings=findings(Answers(context, said, tuple(result.each("missing")), gpus, declared)),
        cost=whole(said.get("cost", "0")) / 100,
    )


def _docker_version(said: Mapping[str, str]) -> str:
    """Return the version of Docker's server; podman has none, so return its own."""
    if said.get("answers") != "yes":
        return ""
    found = re.search(r"\d+(\.\d+)+", said.get("client", ""))
    return said.get("server") or (found.group() if found else "")


def used(gpus: tuple[Gpu, ...], result: Result, server: str) -> dict[int, str]:
    """Return which GPUs are used outside of dstack, and by which process, or by how much memory if none is visible."""
    index = {key: gpu.index for gpu in gpus for key in (gpu.uuid, gpu.node) if key}
    found: dict[int, str] = {}
    ours: set[int] = set()
    for app in (line.split(",", 4) for line in result.each("app")):
        if len(app) == 5 and app[0] in index:
            uuid, pid, user, owner, name = (part[-NAME:] for part in app)
            if server and owner == server:
                ours.add(index[uuid])
            else:
                found.setdefault(index[uuid], f"by {user or 'somebody'} ({name.rpartition('/')[2]}, process {pid})")
    for key, _, words in (line.partition(",") for line in result.each("gpu_memory")):
        held = whole(words.strip()) if words.strip().isdecimal() else 0
        if held > IDLE and key in index and index[key] not in ours:
            found.setdefault(index[key], f"by an unknown process ({memory_words(held * 1024**2)})")
    return found


def _split(lines: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Parse what `nvidia-smi -L` lists: the index of each GPU, followed by the profiles of its MIG devices."""
    found: dict[int, tuple[str, ...]] = {}
    index = -1
    for line in lines:
        if line.isdecimal():
            index = whole(line)
        else:
            found[index] = (*found.get(index, ()), line[:NAME])
    return found


def _gpu(text: str, split: Mapping[int, tuple[str, ...]]) -> Gpu:
    """Parse a line of nvidia-smi: index, name, memory in MiB, UUID, the driver's version, and MIG: Enabled or Disabled,
    missing before driver 450. Each may be [N/A], or an error: [GPU is lost], [Unknown Error]."""
    index, name, memory, uuid, *more = (part.strip()[:NAME] for part in text.split(","))
    driver, mig, *_ = (*more, "", "")
    return Gpu(
        index=whole(index),
        name="NVIDIA GPU" if name.startswith("[") else name,
        memory=whole(memory) * 2**20 if memory.isdecimal() else 0,
        uuid=uuid,
        driver=driver,
        mig=split.get(whole(index), ()) if mig == "Enabled" else None,
        trouble=next((part.strip("[]") for part in (name, memory, uuid) if _TROUBLE.fullmatch(part)), ""),
    )
