"""What a machine has, and what keeps jobs from running there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dstack.commands import answer
from dstack.commands.command import Command, Result
from dstack.commands.doctor import Answers, findings
from dstack.commands.place import Place
from dstack.errors import CommandError
from dstack.model.paths import HostLayout
from dstack.model.runner import Facts, Gpu
from dstack.render import script

NAME = "looking at the machine"
ANSWERED = ("machine", "user", "kernel", "cpus", "memory", "folder", "writable", "disk_free")


def probe(root: str, docker: str, *, thorough: bool = False) -> Command[Facts]:
    """Ask a machine everything in one round trip; it is left as it was. Takes at most 90 seconds. `thorough` also
    sees whether a container gets the GPUs."""
    place = Place(HostLayout(root, machine="", server="probe"), docker)

    def facts(result: Result) -> Facts:
        return _facts(place, result)

    return Command(NAME, script("probe", place, podman=place.podman, thorough=thorough), facts)


def _facts(place: Place, result: Result) -> Facts:
    said = answer.values(NAME, result, *ANSWERED)
    pairs = answer.lines(NAME, result)
    missing = tuple(value for key, value in pairs if key == "missing")
    try:
        gpus = tuple(_gpu(value) for key, value in pairs if key == "gpu")
        return Facts(
            machine=said["machine"],
            user=said["user"],
            cpus=int(said["cpus"]),
            memory=int(said["memory"]) * 1024,
            disk_free=int(said["disk_free"]) * 1024,
            gpus=gpus,
            docker=_docker_version(said),
            git=said.get("git", ""),
            kernel=said["kernel"],
            clock=int(said.get("clock", 0)),
            findings=findings(Answers(place, said, missing, bool(gpus))),
        )
    except ValueError as failure:
        raise CommandError(NAME, result.exit_status, f"the host's answer is not understood: {failure}") from failure


def _docker_version(said: Mapping[str, str]) -> str:
    """The server's; podman has none, and says its own."""
    if said.get("answers") != "yes":
        return ""
    if said.get("server"):
        return said["server"]
    found = re.search(r"\d+(\.\d+)+", said.get("client", ""))
    return found.group() if found else ""


def _gpu(text: str) -> Gpu:
    """A line of nvidia-smi: index, name, memory in MiB (or [N/A]), UUID."""
    index, name, memory, uuid = (part.strip() for part in text.split(","))
    return Gpu(index=int(index), name=name, memory=int(memory) * 2**20 if memory.isdigit() else 0, uuid=uuid)
