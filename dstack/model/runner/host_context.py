"""A server's folder on a host and its docker command, which every script needs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from itertools import pairwise

from dstack.errors import UsageError
from dstack.model.paths import HostLayout

BOOT_ID = "/proc/sys/kernel/random/boot_id"
OTHER_MACHINE = 94
"""The exit status of a script that runs on a different machine than intended."""
OTHER_SERVER = 95
"""The exit status of a script that found another server with the same id on its machine."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class HostContext:
    """A server's folder on one host, and the docker command there. `docker` is split as sh does: `podman`, `sudo -n
    docker`, `docker -H unix:///x.sock`. `boot_id`, `proc`, `sys` and `dev` are the kernel's paths for the boot id,
    processes and devices. `owner` is the line by which the server shows that the folder is its own: its instance, its
    epoch, and where it runs; "" for a script that does not depend on that. `daemons` are the Docker daemons that the
    host named before, as pid:start time; scripts look for them again once one has ended."""

    layout: HostLayout
    docker: str = "docker"
    owner: str = ""
    boot_id: str = BOOT_ID
    proc: str = "/proc"
    sys: str = "/sys"
    dev: str = "/dev"
    daemons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.layout.root.startswith(("/", "~/")):
            words = f"'{self.layout.root}' is not a valid root: it must start with / or ~/"
            raise UsageError(words, hint="use --root ~/.dstack-host")
        if not self.words:
            raise UsageError("the docker command is empty", hint="use --docker docker, podman or 'sudo docker'")

    @property
    def words(self) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(self.docker))
        except ValueError as problem:
            raise UsageError(f"the docker command {self.docker!r} can't be parsed: {problem}") from problem

    @property
    def socket(self) -> str:
        """Where the docker command finds its daemon; "" for the environment's or the default place."""
        words = [word for argument in self.words for word in argument.split("=", 1)]
        return next((value for option, value in pairwise(words) if option in ("-H", "--host")), "")

    @property
    def instance(self) -> str:
        """The server that the folder must belong to; "" for any."""
        return self.owner.partition(" ")[0]

    @property
    def podman(self) -> bool:
        return any(word.rpartition("/")[2] == "podman" for word in self.words)

    @property
    def engine(self) -> str:
        """The name of what runs containers there, for people."""
        return "podman" if self.podman else "Docker"


def folder_name(text: str) -> str:
    """Return the text if it is a valid folder name on a host. Otherwise raise ValueError: the server makes all ids."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a valid folder name on a host")
    return text
