"""The server is killed at any point while it stores artifacts, and stores them again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from dstack.artifacts.folder.store import FolderStore
from tests.unit.artifacts.made import file, keep, link, manifest, on_disk

CONTENTS = {f"out/{number % 7}/{number}": (b"%d" % (number % 300)) * 50 for number in range(400)}
MADE = manifest(
    [*(file(path, content, 0o755 if "/3/" in path else 0o644) for path, content in CONTENTS.items()), link("l", "out")]
)
PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.unit.artifacts.folder.test_crash import CONTENTS, MADE, FolderStore, keep
store = FolderStore(Path(sys.argv[1]))
print("ready", flush=True)
asyncio.run(keep(store, MADE, CONTENTS))
print("stored", flush=True)
"""


def begin(root: Path) -> subprocess.Popen[bytes]:
    """Start a process that is ready to store everything."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, root], stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_killed_anywhere_and_repeated(tmp_path: Path) -> None:
    with begin(tmp_path / "whole") as process:
        begun = time.monotonic()
        process.wait()
    usual = time.monotonic() - begun
    expected = on_disk(tmp_path / "whole")
    moments = random.Random(7)
    killed = 0
    for number in range(15):
        root = tmp_path / str(number)
        with begin(root) as process:
            try:
                process.wait(moments.uniform(0, usual))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
        store = FolderStore(root)
        found = store.manifest(MADE.run, MADE.workflow)
        assert found in (None, MADE)
        assert found is None or store.verify(found) is None

        asyncio.run(store.sweep(time.time() + 1))
        asyncio.run(keep(store, MADE, CONTENTS))

        assert on_disk(root) == expected
        assert store.verify(MADE) is None
    assert killed >= 5


def test_what_is_young_is_not_swept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for name, age in {"train.old": 100, "train.new": 300}.items():
        folder = tmp_path / ".incoming" / name
        folder.mkdir(parents=True)
        (folder / "incoming").write_bytes(b"half")
        for path in (folder / "incoming", folder):
            os.utime(path, (age, age))
    os.utime(tmp_path / ".incoming/train.new", (100, 100))

    asyncio.run(store.sweep(200))

    assert [path.name for path in (tmp_path / ".incoming").iterdir()] == ["train.new"]
