"""Artifacts of jobs, for tests of stores."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from dstack.artifacts.folder.store import FolderStore
from dstack.model.job.manifest import File, Manifest
from dstack.model.job.pieces import Stored


def file(path: str, content: bytes, mode: int = 0o644) -> File:
    return File(path, len(content), mode, hashlib.sha256(content).hexdigest())


def link(path: str, target: str) -> File:
    return File(path, 0, 0o777, "", target)


def manifest(files: Iterable[File], run: str = "run-1", workflow: str = "train", job: str = "j1") -> Manifest:
    return Manifest(job=job, run=run, workflow=workflow, status="done", files=tuple(files))


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class Index:
    """Which object has which content, in memory."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], tuple[str, Stored]] = {}

    def add(self, storage: str, objects: Iterable[tuple[str, Stored]]) -> None:
        self.objects.update({(storage, stored.key): (sha256, stored) for sha256, stored in objects})

    def find(self, storage: str, sha256: str, size: int) -> list[Stored]:
        known = [(digest, stored) for (name, _), (digest, stored) in self.objects.items() if name == storage]
        return [stored for digest, stored in known if (digest, stored.size) == (sha256, size)]

    def forget(self, storage: str, keys: Iterable[str]) -> None:
        for key in keys:
            self.objects.pop((storage, key), None)

    def forget_below(self, storage: str, prefix: str) -> None:
        self.forget(storage, [key for name, key in self.objects if name == storage and key.startswith(prefix)])


async def keep(store: FolderStore, made: Manifest, contents: Mapping[str, bytes]) -> list[File]:
    """Store a job's artifacts as the engine does. Return the files whose contents were sent."""
    missing = await store.missing(made.files)
    sent = stream(*(contents[one.path] for one in missing))
    await store.receive(made.run, made.workflow, sent, missing)
    await store.commit(made)
    return missing


def on_disk(root: Path) -> dict[str, tuple[int, bytes | str]]:
    """Return every file and link in a folder except the store's hidden ones: mode and content, or target."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith("."):
            continue
        if path.is_symlink():
            found[name] = (0, str(path.readlink()))
        elif path.is_file():
            found[name] = (path.stat().st_mode & 0o7777, path.read_bytes())
    return found
