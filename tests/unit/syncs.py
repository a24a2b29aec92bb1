"""The order in which files are written to disk: what only a power cut could show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Syncs(list[str]):
    """The names of the files and folders that were synced, in order. Tests add what happens in between."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        real = os.fsync

        def fsync(descriptor: int) -> None:
            self.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
