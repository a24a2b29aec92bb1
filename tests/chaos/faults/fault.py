"""A fault begins, and ends. It says which jobs it may have ended, and which reasons it explains."""

from __future__ import annotations

import itertools
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from dstack.model.job.reasons import ReasonCode
from tests.chaos.world import Machine, Site

UNREACHABLE = frozenset({ReasonCode.RUNNER_UNREACHABLE, ReasonCode.RUNNER_BEING_CHECKED, ReasonCode.RUNNER_UNUSABLE})
STORAGE = frozenset({ReasonCode.STORAGE_UNAVAILABLE, ReasonCode.UPLOADING})


class Fault:
    """One thing that goes wrong, at a time and for a time. `random` decides what exactly, the same for the same plan.

    `hit` has the attempts that it may have ended: `<job>` or `<job>-<attempt>`.
    """

    explains: ClassVar[frozenset[ReasonCode]] = frozenset()
    needs: ClassVar[str] = ""
    """The kind of storage that it breaks; "" if it fits any."""
    breaks: ClassVar[str] = ""
    """The part that it breaks, if another fault can't break it at the same time, or if a reason may blame it."""
    all_jobs: ClassVar[bool] = False
    """Whether it may end every job on its machine."""
    one_machine: ClassVar[bool] = False
    """Whether it explains only what is said about its machine."""
    moves_clock: ClassVar[bool] = False
    forgets: ClassVar[bool] = False
    """Whether the server may afterwards not know the runs that were submitted while it lasted."""

    def __init__(self, site: Site, random: random.Random) -> None:
        self.site = site
        self.random = random
        self.machine: Machine = random.choice(site.machines)
        self.hit: set[str] = set()

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Undo it."""

    def accounts_for(self, job: dict[str, Any]) -> bool:
        """Whether it explains the reason that a job shows."""
        about = job["runner"] == self.machine.name or self.machine.name in (job["reason"] or "")
        return job["reason_code"] in self.explains and (about or not self.one_machine)

    def __str__(self) -> str:
        return type(self).__name__


def fill(file: Path) -> None:
    """Write to a file until no byte fits on its disk."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while ballast.write(bytes(size)):
                    pass


def use_inodes(folder: Path) -> None:
    """Make files until the disk can hold no further one."""
    with suppress(OSError):
        for number in itertools.count():
            (folder / str(number)).touch()
