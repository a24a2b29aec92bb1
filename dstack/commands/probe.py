"""What a machine has, and what keeps jobs from running there."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dstack.commands import answer
from dstack.commands.command import Command, Result
from dstack.commands.place import Place
from dstack.errors import CommandError
from dstack.model.paths import HostLayout
from dstack.model.runner import Facts, Gpu
from dstack.render import script

NAME = "looking at the machine"
OLDEST_GIT = (2, 20)
ANSWERED = ("machine", "user", "kernel", "cpus", "memory", "folder", "writable", "disk_free")
PACKAGES = {"flock": "util-linux", "sha256sum": "coreutils", "tar": "tar", "timeout": "coreutils"}


def probe(root: str, docker: str) -> Command[Facts]:
    """Ask a machine everything in one round trip; it is left as it was. Takes at most 90 seconds."""
    place = Place(HostLayout(root, machine="", server="probe"), docker)

    def facts(result: Result) -> Facts:
        return _facts(place, result)

    return Command(NAME, script("probe", place), facts)


def _facts(place: Place, result: Result) -> Facts:
    said = answer.values(NAME, result, *ANSWERED)
    pairs = answer.lines(NAME, result)
    missing = [value for key, value in pairs if key == "missing"]
    problem, fix = _problem(place, said, missing) or (None, None)
    try:
        return Facts(
            machine=said["machine"],
            user=said["user"],
            cpus=int(said["cpus"]),
            memory=int(said["memory"]) * 1024,
            disk_free=int(said["disk_free"]) * 1024,
            gpus=tuple(_gpu(value) for key, value in pairs if key == "gpu"),
            docker=_docker_version(said),
            git=said.get("git", ""),
            kernel=said["kernel"],
            problem=problem,
            fix=fix,
        )
    except ValueError as failure:
        raise CommandError(NAME, result.exit_status, f"the host's answer is not understood: {failure}") from failure


def _problem(place: Place, said: Mapping[str, str], missing: list[str]) -> tuple[str, str] | None:
    """The first thing in the way, and what to type about it."""
    if said.get("client") == "none":
        name = place.words[0]
        return f"there is no '{name}' on this machine", _install("docker.io" if name == "docker" else name)
    if said.get("answers") != "yes":
        return _refused(place, said["user"], said.get("refusal", "").strip())
    if not said.get("git"):
        return "git is not installed", _install("git")
    if _version(said["git"]) < OLDEST_GIT:
        oldest = ".".join(str(part) for part in OLDEST_GIT)
        return f"git {said['git']} is too old: dstack needs {oldest} or newer", "upgrade git on the machine"
    if missing:
        return f"'{missing[0]}' is not installed", _install(PACKAGES[missing[0]])
    if said["writable"] != "yes":
        owner = f"sudo chown {said['user']} {said['folder']}"
        return f"{said['user']} can't write to {said['folder']}", f"{owner}, or choose another folder with --root"
    return None


def _refused(place: Place, user: str, words: str) -> tuple[str, str]:
    """Docker is there, and does not serve this user. The daemon itself can't say why: the words are the system's."""
    if "permission denied" in words.lower():
        return f"{user} may not use Docker: {words}", f"sudo usermod -aG docker {user}"
    if "sudo" in place.words and "password" in words:
        return f"sudo asks {user} for a password", f"sudo usermod -aG docker {user}, and --docker docker"
    return f"Docker does not answer: {words or 'not within 20 seconds'}", "sudo systemctl start docker"


def _install(package: str) -> str:
    return f"sudo apt-get install {package}, or what your system's package manager calls it"


def _version(text: str) -> tuple[int, ...]:
    """`2.39.5` and `2.39.3.windows.1` alike: the numbers in front."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


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
