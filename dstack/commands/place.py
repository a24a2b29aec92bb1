"""Where on a host, and with which Docker: what every script needs to know."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from dstack.errors import UsageError
from dstack.model.paths import HostLayout

BOOT_ID = "/proc/sys/kernel/random/boot_id"
OTHER_MACHINE = 94
"""The exit status of a script that found itself on another machine than the one it is for."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Place:
    """A server's folder on one host, and the words before a docker command there.

    `docker` is split as sh does: `podman`, `sudo -n docker`, `docker -H unix:///x.sock`. `boot_id` and `proc` are
    where the kernel says which boot this is and what runs, `sys` and `dev` where it shows devices.
    """

    layout: HostLayout
    docker: str = "docker"
    boot_id: str = BOOT_ID
    proc: str = "/proc"
    sys: str = "/sys"
    dev: str = "/dev"

    def __post_init__(self) -> None:
        if not self.layout.root.startswith(("/", "~/")):
            raise UsageError(
                f"the root '{self.layout.root}' is neither an absolute path nor one below the user's home",
                hint="begin it with / or ~/",
            )
        if not self.words:
            raise UsageError("the docker command is empty", hint="name one: docker, podman, sudo docker")

    @property
    def words(self) -> tuple[str, ...]:
        """The docker command, word by word."""
        try:
            return tuple(shlex.split(self.docker))
        except ValueError as problem:
            raise UsageError(f"the docker command {self.docker!r} can't be read: {problem}") from problem

    @property
    def podman(self) -> bool:
        """Whether the command names podman."""
        return any(word.rpartition("/")[2] == "podman" for word in self.words)


def folder_name(text: str) -> str:
    """The text, if it may name a folder on a host. Raises ValueError: ids are made by the server."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} can't name a folder on a host")
    return text
