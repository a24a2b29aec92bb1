"""Explains why a job could not start, from the messages of Docker, registries and NVIDIA's tools. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from dstack.commands.engine_words import bare
from dstack.commands.job.launch import LAUNCHING
from dstack.commands.machine.doctor import TOOLKIT, gpus_fail
from dstack.commands.machine.pull import Login
from dstack.errors import CommandError, HostError, HostUnreachableError
from dstack.executors.executor import RunnerFaultError
from dstack.model.job.reasons import ReasonCode


class FailureKind(Struct, frozen=True):
    """A failure that is recognized by its message. `what` and `hint` may contain {runner} and {image}."""

    code: ReasonCode
    words: str
    what: str
    hint: str


FULL = FailureKind(
    ReasonCode.DISK_FULL,
    r"no space left on device|disk quota exceeded|not enough space",
    "the disk of {runner} is full",
    "find what fills it: dstack runners check {runner}; remove unneeded data: dstack prune",
)
SILENT = re.compile(r"cannot connect to the docker daemon|is the docker daemon running|error during connect")
TIMED_OUT = 124
"""The exit status of timeout(1), with which jobs' scripts wait for nothing but Docker."""
PULLING: tuple[FailureKind, ...] = (
    FULL,
    FailureKind(
        ReasonCode.RATE_LIMITED,
        r"toomanyrequests|rate limit|too many requests",
        "the registry's rate limit was reached",
        "try again later, or log in: add 'registry-auth' to the workflow",
    ),
    FailureKind(
        ReasonCode.IMAGE_NOT_FOUND,
        r"manifest unknown|manifest for .* not found|name unknown|repository name not known|: not found",
        "the registry has no such image",
        "check 'image' in .dstack/workflows.yaml",
    ),
    FailureKind(
        ReasonCode.IMAGE_UNSUITABLE,
        r"no matching manifest for|image operating system .* cannot be used|no image found in .* for architecture",
        "the image does not support the architecture of {runner}",
        "choose an image for the machine's architecture",
    ),
    FailureKind(
        ReasonCode.REGISTRY_UNREACHABLE,
        r"x509|certificate|http response to https client",
        "{runner} does not trust the registry",
        "put its certificate into /etc/docker/certs.d on {runner}, or add it to insecure-registries",
    ),
    FailureKind(
        ReasonCode.REGISTRY_UNREACHABLE,
        r"dial tcp|no such host|connection refused|no route to host|network is unreachable|i/o timeout"
        r"|tls handshake timeout|temporary failure|client\.timeout|connection reset|unexpected eof",
        "{runner} can't reach the registry",
        "try it there: docker pull {image}",
    ),
)
REFUSED = re.compile(
    r"unauthorized|denied|no basic auth|authentication required|incorrect username or password|\b40[13]\b"
)
DEVICES = re.compile(
    r"could not select device driver|nvidia-container|nvidia container|nvml|unresolvable cdi|driver rpc error"
    r"|no devices were found|unknown device|error gathering device information"
)
STARTING: tuple[FailureKind, ...] = (
    FULL,
    FailureKind(
        ReasonCode.IMAGE_UNSUITABLE,
        r'exec: "/bin/sh"|/bin/sh: no such file|executable file not found|exec format error',
        "the image {image} can't run /bin/sh",
        "choose an image with /bin/sh for the machine's architecture",
    ),
    FailureKind(
        ReasonCode.IMAGE_UNSUITABLE,
        r"unable to find (user|group)|no matching entries in passwd|looking up user|(invalid|unknown) user",
        "the image {image} does not have this user",
        "set 'user' to a number, or leave it out",
    ),
    FailureKind(
        ReasonCode.IMAGE_REMOVED,
        r"no such image|image not known",
        "the image {image} was removed from {runner} in the meantime",
        "submit the run again; that pulls the image",
    ),
)


def not_pulled(refused: CommandError, *, runner: str, image: str, login: Login | None) -> HostError:
    """Return the error for an image that could not be pulled. `login` is from the workflow's `registry-auth`."""
    words = bare(refused.stderr) or "Docker gives no reason"
    failed = f"pulling {image} failed: "
    if kind := _known(PULLING, words):
        return _error(kind, words, failed, runner=runner, image=image)
    if not REFUSED.search(words.lower()):
        return HostError(failed + words, code=ReasonCode.IMAGE_PULL_FAILED)
    what = "the registry requires a login, or has no such image"
    hint = "check 'image'; if it is private, add 'registry-auth: {username: NAME, password: SECRET}' to the workflow"
    if login and login.secret:
        what = f"the registry rejected the login of '{login.username}' with the secret {login.secret}"
        hint = f"set the password again: dstack secrets set {login.secret}"
    return HostError(f"{failed}{what}: {words}", hint=hint, code=ReasonCode.REGISTRY_LOGIN)


def not_started(refused: CommandError, *, runner: str, image: str, gpus: Sequence[int]) -> HostError:
    """Return the error for a job that could not be started: RunnerFaultError if the runner is at fault."""
    words = bare(refused.stderr) or "it printed nothing"
    if gpus and DEVICES.search(words.lower()):
        finding = gpus_fail(words)
        code = ReasonCode.NO_CONTAINER_TOOLKIT if TOOLKIT.search(words) else ReasonCode.GPU_DRIVER
        what = f"containers can't use the GPUs of {runner}: {words}"
        return RunnerFaultError(what, finding, hint=finding.fix, code=code)
    if refused.exit_status == LAUNCHING:
        return HostUnreachableError(words)
    if kind := _known(STARTING, words):
        return _error(kind, words, runner=runner, image=image)
    failed = f"{refused.name} failed with exit status {refused.exit_status}: {words}"
    return HostError(failed, code=ReasonCode.CONTAINER_NOT_STARTED)


def silence(refused: CommandError) -> str | None:
    """Return what Docker's client said first, if a command failed because Docker does not answer."""
    if refused.exit_status == TIMED_OUT:
        return "it did not answer in time"
    return next((bare(line) for line in refused.stderr.splitlines() if SILENT.search(line.lower())), None)


def _known(kinds: Sequence[FailureKind], words: str) -> FailureKind | None:
    return next((kind for kind in kinds if re.search(kind.words, words.lower())), None)


def _error(kind: FailureKind, words: str, failed: str = "", **names: str) -> HostError:
    why = "" if kind is FULL else f": {words}"
    return HostError(f"{failed}{kind.what.format(**names)}{why}", hint=kind.hint.format(**names), code=kind.code)
