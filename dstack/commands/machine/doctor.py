"""Finds what is wrong with a machine. Each finding says what, why it matters, and what to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from dstack.commands.engine_words import unwrapped
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Finding, Gpu
from dstack.model.text.units import memory_words, size_words
from dstack.model.text.untrusted import whole

OLDEST_GIT = (2, 20)
TOOLS = {
    "flock": ("util-linux", "launch jobs one at a time"),
    "sha256sum": ("coreutils", "verify artifacts"),
    "tar": ("tar", "transfer code and artifacts"),
    "timeout": ("coreutils", "interrupt a Docker command that hangs"),
    "curl": ("curl", "upload artifacts to S3"),
}
"""What dstack needs, the package that has it, and what it is for."""
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "ceph", "9p")
KIB = 1024
FULL = 50 * 10**6
"""Free bytes of a disk below which no job can run."""
LOW = 5 * 10**9
"""Free bytes of a disk below which an image or a checkpoint may not fit."""
MEMORY_LOW = 512 * 1024**2
"""Available bytes of memory below which jobs may be killed."""
SLOW = "no answer within 20 seconds"
LOST = "sudo reboot; if that does not help, the card or its power supply is broken: sudo dmesg | grep -i -e nvrm -e xid"
TOOLKIT = re.compile("could not select device driver|unresolvable CDI")
"""What Docker and podman say if the NVIDIA Container Toolkit is missing or not set up."""
SKEW = 60
"""Seconds between the clocks of machine and server from which signed URLs and file times are wrong."""


@dataclass(frozen=True)
class Answers:
    """The probe's answer: values by key, missing tools, and GPUs; `declared` is how many the runner is said to have."""

    context: HostContext
    said: Mapping[str, str]
    missing: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    declared: int = 0


def findings(answers: Answers) -> tuple[Finding, ...]:
    """Return all findings, blocking ones first."""
    found = [
        *_docker(answers),
        *_git(answers.said),
        *(_missing(tool) for tool in answers.missing),
        *_root(answers.said),
        *_disks(answers),
        *_gpus(answers),
        *_lingering(answers),
        *_memory(answers.said),
    ]
    return tuple(sorted(found, key=lambda finding: not finding.blocking))


def skewed(clock: int, now: float) -> Finding | None:
    """Return the finding for a machine whose clock shows `clock` when the server's shows `now`, both in seconds."""
    off = round(clock - now)
    if abs(off) < SKEW:
        return None
    what = f"its clock is {abs(off)} seconds {'ahead of' if off > 0 else 'behind'} the server's"
    return Finding(
        "clock", what, "S3 rejects uploads from a machine whose clock is wrong", "sudo timedatectl set-ntp true"
    )


def _docker(answers: Answers) -> Iterator[Finding]:
    context, said = answers.context, answers.said
    why = "every job runs in a container"
    if said.get("client") == "none":
        name = context.words[0]
        fix = _install("docker.io" if name == "docker" else name)
        if said.get("podman") == "yes" and name == "docker":
            fix = "add it with --docker podman, which is installed; or " + fix
        yield Finding("docker-missing", f"'{name}' is not installed", why, fix, True)
    elif "podman" in said.get("client", "") and not context.podman:
        what = f"'{context.words[-1]}' on this machine is actually podman"
        fix = f"add it with --docker {shlex.quote(shlex.join((*context.words[:-1], 'podman')))}"
        yield Finding("docker-is-podman", what, "podman needs other options than Docker", fix, True)
    elif said.get("answers") != "yes":
        yield _refused(answers, said.get("refusal", "").strip(), why)


def _refused(answers: Answers, words: str, why: str) -> Finding:
    """Return the finding for a Docker that is installed but does not answer this user. `words` is its error message."""
    user = answers.said["user"]
    if own := answers.said.get("own_docker"):
        what = f"{user} has a rootless Docker at {own}, and can't use the machine's Docker: {words}"
        docker = shlex.join((*answers.context.words, "-H", f"unix://{own}"))
        return Finding("docker-rootless", what, why, f"add it with --docker {shlex.quote(docker)}", True)
    if "sudo" in answers.context.words and "password" in words:
        fix = f"sudo usermod -aG docker {user}, then add it with --docker docker"
        return Finding("sudo", f"sudo asks {user} for a password", why, fix, True)
    if "permission denied" in words.lower():
        fix = f"sudo usermod -aG docker {user}"
        if answers.said.get("sudo") == "yes":
            fix = f"add it with --docker 'sudo -n {' '.join(answers.context.words)}', which works; or {fix}"
        return Finding("docker-permission", f"{user} is not allowed to use Docker: {words}", why, fix, True)
    if answers.context.podman:
        fix = "run there: podman info; rootless podman needs user namespaces, and ranges in /etc/subuid and /etc/subgid"
        return Finding("docker-daemon", f"podman does not answer: {words or SLOW}", why, fix, True)
    what = f"Docker does not answer: {words or SLOW}"
    return Finding("docker-daemon", what, why, "sudo systemctl start docker", True)


def _git(said: Mapping[str, str]) -> Iterator[Finding]:
    why = "dstack transfers your code as git objects"
    if not said.get("git"):
        yield Finding("git", "git is not installed", why, _install("git"), True)
    elif version(said["git"]) < OLDEST_GIT:
        oldest = ".".join(str(part) for part in OLDEST_GIT)
        what = f"git {said['git']} is too old: dstack needs {oldest} or newer"
        yield Finding("git-old", what, why, "upgrade git on the machine", True)


def _missing(tool: str) -> Finding:
    package, use = TOOLS[tool]
    return Finding(tool, f"'{tool}' is not installed", f"dstack uses it to {use}", _install(package), tool != "curl")


def _root(said: Mapping[str, str]) -> Iterator[Finding]:
    folder, user = said["folder"], said["user"]
    point, _, rest = said.get("mount", "").partition(" ")
    kind, _, options = rest.partition(" ")
    if "ro" in options.split(","):
        what = f"{folder} is on a file system that is mounted read-only ({point})"
        fix = f"sudo mount -o remount,rw {point}, or choose another folder with --root"
        yield Finding("read-only", what, "dstack keeps jobs and their code there", fix, True)
    elif said["writable"] != "yes":
        fix = f"sudo chown {user} {folder}, or choose another folder with --root"
        what = f"{user} can't write to {folder}"
        yield Finding("not-writable", what, "dstack keeps jobs and their code there", fix, True)
    if "noexec" in options.split(","):
        what = f"{folder} is on a file system that is mounted noexec ({point})"
        fix = f"choose another folder with --root, or: sudo mount -o remount,exec {point}"
        yield Finding("noexec", what, "a job can't run programs from its own tree, such as ./run.sh", fix)
    if kind in NETWORK:
        what = f"{folder} is on a network file system ({kind})"
        why = "it is slow, and root in a container may not be allowed to read it"
        yield Finding("network-home", what, why, "choose a folder on a local disk with --root")


def _disks(answers: Answers) -> Iterator[Finding]:
    said, engine = answers.said, answers.context.engine
    fix = "find what fills it: sudo du -xh --max-depth=2 {} | sort -h | tail"
    why = "dstack writes code, logs and results of jobs there"
    yield from _disk(said, "disk", said["folder"], why, fix.format(said["folder"]))
    if said.get("docker_disk_free") and said["docker_disk_free"] != said["disk_free"]:
        fix = "docker system prune, or give Docker another data-root"
        if answers.context.podman:
            fix = "podman system prune, or give podman another graphroot in storage.conf"
        yield from _disk(said, "docker_disk", said["docker_root"], f"{engine} keeps images and containers there", fix)


def _disk(said: Mapping[str, str], name: str, folder: str, why: str, fix: str) -> Iterator[Finding]:
    kind = name.replace("_", "-")
    free, total = whole(said[f"{name}_free"]) * KIB, whole(said.get(f"{name}_total") or "0") * KIB
    if free < FULL:
        what = f"the disk of {folder} is full: {size_words(free)} of {size_words(total)} free"
        yield Finding(f"{kind}-full", what, why, fix, True)
    elif free < LOW:
        yield Finding(f"{kind}-low", f"the disk of {folder} has only {size_words(free)} free", why, fix)
    inodes = [whole(part) for part in said.get(f"{name}_inodes", "").split() if part.isdecimal()]
    if len(inodes) == 2 and inodes[0] and inodes[1] < 100:
        what = f"the disk of {folder} has almost no inodes left: {inodes[1]} of {inodes[0]} free"
        yield Finding(f"{kind}-inodes", what, "no files can be created there", fix, True)


def _gpus(answers: Answers) -> Iterator[Finding]:
    if answers.said.get("driver"):
        words = " ".join(answers.said["driver"].split())
        why = "jobs that ask for GPUs can't run here"
        yield Finding("gpu-driver", f"nvidia-smi fails: {words}", why, _driver_fix(words))
    for gpu in answers.gpus:
        if gpu.trouble:
            what = f"GPU {gpu.index} ({gpu.name}) does not work: {gpu.trouble}"
            yield Finding("gpu-lost", what, "jobs only get GPUs that work, so it is not used", LOST)
        if gpu.mig is not None:
            listed = ", ".join(f"{gpu.mig.count(name)}x {name}" for name in dict.fromkeys(gpu.mig)) or "no devices yet"
            what = f"GPU {gpu.index} ({gpu.name}) is split by MIG: {listed}"
            fix = f"turn MIG off: sudo nvidia-smi -i {gpu.index} -mig 0"
            yield Finding("gpu-mig", what, "jobs only get whole GPUs, so it is not used", fix)
    yield from _tried(answers)
    amd = [gpu for gpu in answers.gpus if gpu.vendor == "amd"]
    lost = [str(gpu.index) for gpu in amd if not gpu.node]
    if lost:
        what = f"/dev/dri has no device for AMD GPU {', '.join(lost)}"
        fix = "see `rocm-smi --showbus` and `ls -l /dev/kfd /dev/dri/by-path`; sudo modprobe amdgpu"
        yield Finding("gpu-amd", what, "it can't be given to jobs", fix)
    elif "amd" in answers.said and not amd:
        words = " ".join(answers.said.get("amd_refusal", "").split())
        what = f"no AMD GPU answers: {words}" if words else "no AMD GPU answers"
        yield Finding("gpu-amd", what, "jobs that ask for GPUs can't run here", _amd_fix(words, answers.said["user"]))


def _tried(answers: Answers) -> Iterator[Finding]:
    """Whether a container got the GPUs, if that was tried: then Docker complained only that its program is missing."""
    words = answers.said.get("gpu_container")
    if words is None or "dstack-nothing" in words:
        return
    nvidia = [gpu for gpu in answers.gpus if gpu.vendor == "nvidia"]
    failure = gpus_fail(unwrapped(words) or "no answer within 60 seconds")
    if nvidia and len(nvidia) < answers.declared and not TOOLKIT.search(words):
        fix = f"declare {len(nvidia)} with --gpus, which nvidia-smi finds, or find out why it does not find the others"
        failure = replace(failure, fix=fix)
    yield failure


def _driver_fix(words: str) -> str:
    """Return what to type for a message of nvidia-smi (its man page, RETURN VALUE)."""
    if "version mismatch" in words:
        return "sudo reboot"
    if "GPU is lost" in words or "Unable to determine the device handle" in words:
        return LOST
    if "libnvidia-ml" in words or "Mismatch in versions between nvidia-smi" in words:
        return "reinstall the driver: nvidia-smi and its library must have the same version"
    if "couldn't communicate with the NVIDIA driver" in words:
        return "sudo modprobe nvidia; if that fails, reinstall the driver for this kernel"
    if "No devices were found" in words:
        return "check the kernel's log: sudo dmesg | grep -i nvrm; if there is no card, remove nvidia-smi"
    return "sudo reboot if the driver was updated; otherwise reinstall the driver"


def _amd_fix(words: str, user: str) -> str:
    """Return what to type for a message of amd-smi or rocm-smi."""
    if "required groups" in words or "Permission" in words:
        return f"sudo usermod -aG render,video {user}"
    return "sudo modprobe amdgpu, then sudo dmesg | grep -i amdgpu; if there is no card, remove the tool"


def gpus_fail(words: str) -> Finding:
    """Return the finding for a machine whose containers don't get its GPUs; `words` is Docker's message."""
    fix = (
        "install the NVIDIA Container Toolkit: sudo apt-get install nvidia-container-toolkit, then "
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    )
    if not TOOLKIT.search(words):
        fix = "run nvidia-smi on the machine; if the driver was updated: sudo reboot"
    what = f"containers don't get the GPUs: {words}"
    return Finding("gpu-toolkit", what, "jobs that ask for GPUs fail when they start", fix)


def _lingering(answers: Answers) -> Iterator[Finding]:
    rootless = answers.said.get("rootless", "")
    if answers.said.get("lingers") == "no" and ("rootless" in rootless or rootless == "true"):
        what = f"processes of {answers.said['user']} end with the last login session"
        why = "a rootless engine's containers belong to the login session, so jobs would end with it"
        yield Finding("lingering", what, why, f"sudo loginctl enable-linger {answers.said['user']}")


def _memory(said: Mapping[str, str]) -> Iterator[Finding]:
    free = said.get("memory_free", "")
    if free.isdecimal() and whole(free) * KIB < MEMORY_LOW:
        what = f"only {memory_words(whole(free) * KIB)} of memory is available"
        yield Finding("memory", what, "jobs may run out of it", "find what uses it: ps aux --sort=-rss | head")


def _install(package: str) -> str:
    return f"sudo apt-get install {package}, or the equivalent for your system's package manager"


def version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version such as `2.39.5` or `2.39.3.windows.1`."""
    found = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
