"""Fake GPUs: an `nvidia-smi` for a host, and the hook through which Docker gives a container its GPUs.

The hook puts an `nvidia-smi` into the container that lists the container's GPUs, and records which container has which
GPU. This tests flags, selection and errors, but not CUDA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

SMI = """#!/bin/sh
# {folder}
if [ -e {folder}/lost ]; then echo 'No devices were found' && exit 6; fi
case "$*" in
*query-gpu=*) for index in {indexes}; do echo "$index, {name}, {memory}, GPU-$index"; done ;;
*query-compute-apps=*) cat {folder}/apps 2> /dev/null ;;
esac
"""

HOOK = """#!/usr/bin/env python3
import fcntl, json, os, sys
from pathlib import Path

folder = Path("{folder}")
state = json.load(sys.stdin)
config = json.loads((Path(state["bundle"]) / "config.json").read_text())
broken = folder / "broken"
environment = dict(entry.split("=", 1) for entry in config["process"]["env"])
given = environment.get("NVIDIA_VISIBLE_DEVICES", "")
if not given[:1].isdigit():
    sys.exit()
if broken.exists():
    sys.exit(broken.read_text())
root = Path(state["bundle"]) / config["root"]["path"]
smi = root / "bin" / "nvidia-smi"
smi.write_text("#!/bin/sh\\necho " + given + "\\n")
smi.chmod(0o755)
with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    for index in given.split(","):
        if not index.isdigit() or int(index) >= {count}:
            sys.exit("there is no GPU " + repr(index))
        holder = folder / ("gpu" + index)
        if holder.exists() and os.path.exists("/proc/" + holder.read_text()):
            with (folder / "overlaps").open("a") as overlaps:
                overlaps.write("GPU " + index + " is used already\\n")
        holder.write_text(str(state["pid"]))
with (folder / "given").open("a") as log:
    log.write(given + "\\n")
"""


class FakeGpus:
    """A machine's `count` GPUs. The folder `programs` holds `nvidia-smi` and Docker's hook."""

    def __init__(self, folder: Path, count: int, name: str = "Fake A100", mib: int = 40960) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        folder.chmod(0o755)
        indexes = " ".join(str(index) for index in range(count))
        smi = SMI.format(folder=folder, indexes=indexes, name=name, memory=mib)
        hook = HOOK.replace("{folder}", str(folder)).replace("{count}", str(count))
        for program, text in (("nvidia-smi", smi), ("nvidia-container-runtime-hook", hook)):
            (self.programs / program).write_text(text)
            (self.programs / program).chmod(0o755)

    def fail(self, words: str | None) -> None:
        """From now on refuse every container with this error, as a broken driver does. None: work again."""
        if words is None:
            (self.folder / "broken").unlink()
        else:
            (self.folder / "broken").write_text(words)

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """Hide all GPUs from the machine within this context."""
        (self.folder / "lost").touch()
        try:
            yield
        finally:
            (self.folder / "lost").unlink()

    @property
    def given(self) -> list[str]:
        """Return the GPUs given to each container, in the order of their starts, as `0,1`."""
        path = self.folder / "given"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def overlaps(self) -> str:
        """Return the starts that got a GPU which a running container already had."""
        path = self.folder / "overlaps"
        return path.read_text() if path.exists() else ""
