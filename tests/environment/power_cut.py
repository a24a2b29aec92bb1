"""A disk whose power can be cut: a loop device, so that its backing file holds only what was flushed to it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.environment import needs
from tests.environment.waiting import until


class Disk:
    """An ext4 file system of `size` bytes, mounted at `path`. Needs root and loop devices.

    The kernel writes to it only what a program syncs: the journal's own commits are an hour apart. Writeback of old
    pages (30 s after they were written) is the only other way to the disk.
    """

    def __init__(self, folder: Path, size: int = 128 * 1024**2) -> None:
        needs.root("a loop device")
        self.image = folder / "disk.img"
        self.path = folder / "disk"
        self.path.mkdir()
        with self.image.open("wb") as image:
            image.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", self.image], check=True)
        self._mounted = 0
        self._mount()

    def cut(self, processes: Iterable[int]) -> None:
        """Cut the power: kill these processes, and forget all that they wrote but did not sync.

        They are frozen first, so that the image is one moment's. The new file system is mounted over the old one, and
        before they end, so that whoever notices their end finds what is left, and never an empty folder.
        """
        processes = list(processes)
        _signal(processes, signal.SIGSTOP)
        flushed = self.image.with_suffix(".cut")
        subprocess.run(["cp", "--sparse=always", self.image, flushed], check=True)
        flushed.replace(self.image)
        self._mount()
        _signal(processes, signal.SIGKILL)

    def close(self) -> None:
        """Unmount it once nobody uses it, and remove it."""

        def unmounted() -> bool:
            return subprocess.run(["umount", self.path], capture_output=True).returncode == 0

        for _ in range(self._mounted):
            until(unmounted, f"{self.path} is unmounted", 30)
        self.image.unlink()
        self.path.rmdir()

    def _mount(self) -> None:
        options = "loop,commit=3600,nobarrier"
        done = subprocess.run(["mount", "-o", options, self.image, self.path], capture_output=True, text=True)
        if done.returncode:
            needs.missing(f"a loop device can't be mounted here: {done.stderr.strip()}")
        self._mounted += 1


def _signal(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
