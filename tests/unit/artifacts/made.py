"""What jobs made, for tests of the store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from dstack.artifacts.folder.store import FolderStore
from dstack.model.job.manifest import File, Manifest


def file(path: str, content: bytes, mode: int = 0o644) -> File:
    return File(path, len(content), mode, hashlib.sha256(content).hexdigest())


def link(path: str, target: str) -> File:
    return File(path, 0, 0o777, "", target)


def manifest(files: Iterable[File], run: str = "run-1", workflow: str = "train", job: str = "j1") -> Manifest:
    return Manifest(job=job, run=run, workflow=workflow, status="done", files=tuple(files))


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def keep(store: FolderStore, made: Manifest, contents: Mapping[str, bytes]) -> list[File]:
    """Store what a job made, as the engine does. Returns the files whose contents were sent."""
    missing = await store.missing(made.files)
    sent = stream(*(contents[one.path] for one in missing))
    await store.receive(made.run, made.workflow, made.job, sent, missing)
    await store.commit(made)
    return missing


def on_disk(root: Path) -> dict[str, tuple[int, bytes | str]]:
    """Every file and link below a folder but the store's own hidden ones: mode and content, or the target."""
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
