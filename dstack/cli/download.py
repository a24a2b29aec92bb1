"""Downloads stored files: in parallel, verified, resumable, and never outside the requested folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dstack.cli import connect
from dstack.cli.destination import FolderTree, destination, safe
from dstack.cli.output import show
from dstack.client.artifact_sources import ArtifactSources
from dstack.client.client import Client
from dstack.client.connection import BrokenAnswerError
from dstack.errors import ConflictError, DstackError, StorageError, TryAgainError, UsageError
from dstack.model.api.artifacts import ArtifactView
from dstack.plumbing.file_errors import naming

AT_ONCE = 8
BLOCK = 1 << 20
TRIES = 6
"""How often in a row a file's transfer may break without a byte of progress."""


@dataclass(frozen=True)
class Item:
    """A stored file and its path, which is checked to lie inside the folder."""

    view: ArtifactView
    path: str

    @classmethod
    def of(cls, view: ArtifactView, *, under: str | None) -> Item:
        """Return the item. Raises StorageError for a path that leaves the folder."""
        return cls(view, safe(view.path if under is None else f"{under}/{view.path}"))

    @property
    def link_stays_inside(self) -> bool:
        """Whether the link's target lies below the folder, whatever other links exist: `..` may only come first."""
        parts = (self.view.link or "/").split("/")
        ups = [index for index, part in enumerate(parts) if part == ".."]
        return bool(parts[0]) and ups == list(range(len(ups))) and len(ups) < len(self.path.split("/"))


class Done(NamedTuple):
    """The result of a download. `files` and `bytes` count everything now in place, `present` what already was."""

    files: int
    bytes: int
    present: int


class Download:
    """One download into `folder`, with `folders` in it, which are given with their permission bits. Without `force`,
    nothing is downloaded if a file would be overwritten."""

    def __init__(self, client: Client, folder: Path, folders: Mapping[str, int], *, force: bool) -> None:
        self._client = client
        self._folder = folder
        self._folders = FolderTree(folder, folders)
        self._force = force
        self._stop = threading.Event()

    def run(self, items: Sequence[Item]) -> Done:
        """Download what is missing. Raises ConflictError for files that differ, before anything is written."""
        allowed = [item for item in items if self._allowed(item)]
        self._make_folder()
        self._folders.open()
        try:
            missing = self._complete_tree(allowed)
        except BaseException:
            self._folders.restore()
            raise
        self._folders.finish()
        return Done(len(allowed), sum(item.view.size for item in allowed), len(allowed) - len(missing))

    def _complete_tree(self, items: Sequence[Item]) -> list[Item]:
        """Bring everything that is missing to its place, and return the files that were."""
        present = self._each(self._present, items)
        missing = [item for item, there in zip(items, present, strict=True) if not there]
        self._refuse_overwriting(missing)
        self._folders.make()
        self._fetch_all([item for item in missing if item.view.link is None])
        for item in missing:
            if item.view.link is not None:
                self._link(item)
        return missing

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            message = f"{self._folder} can't be a folder: a file is in the way; nothing was downloaded"
            raise UsageError(message, hint="choose another -o DIR") from error

    def _fetch_all(self, items: Sequence[Item]) -> None:
        views = [item.view for item in items]
        sources = ArtifactSources(self._client, views, connect.warn)
        size = sum(view.size for view in views)
        with contextlib.closing(sources) as self._sources, show.progress("downloading", size) as advance:
            self._each(lambda item: self._fetch(item, advance), items)

    def _allowed(self, item: Item) -> bool:
        if item.view.link is None or item.link_stays_inside:
            return True
        connect.warn(f"warning: skipped {item.path}: it links to {item.view.link}, outside the folder")
        return False

    def _each(self, work: Callable[[Item], Any], items: Sequence[Item]) -> list[Any]:
        """Do the work for all items in parallel; the first error stops it."""
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            futures = [pool.submit(work, item) for item in items]
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in filter(Future.done, futures):
                future.result()
            return [future.result() for future in futures]
        finally:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            self._stop = threading.Event()

    def _target(self, item: Item) -> Path:
        return destination(self._folder, item.path)

    def _prepared(self, item: Item) -> tuple[Path, Path]:
        """Create the folder of the destination. Return the destination and the partial file beside it, whose name
        depends on path and sha256, so it is never completed with other bytes."""
        target = self._target(item)
        target.parent.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{item.path}\0{item.view.sha256}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return target, target.with_name(f".dstack-{name}.part")

    def _present(self, item: Item) -> bool:
        target, view = self._target(item), item.view
        if view.link is not None:
            return target.is_symlink() and os.readlink(target) == view.link
        if target.is_symlink() or not target.is_file() or target.stat().st_size != view.size:
            return False
        with target.open("rb") as file:
            return _digest(file).hexdigest() == view.sha256

    def _refuse_overwriting(self, missing: Sequence[Item]) -> None:
        there = [target for target in map(self._target, missing) if os.path.lexists(target)]
        folders = [str(target) for target in there if target.is_dir() and not target.is_symlink()]
        if folders:
            raise ConflictError(f"a folder is in the way of a file: {_some(folders)}; nothing was downloaded")
        if there and not self._force:
            raise ConflictError(
                f"files exist with different contents: {_some(list(map(str, there)))}; nothing was downloaded",
                hint="overwrite them with --force, or choose another -o DIR",
            )

    def _link(self, item: Item) -> None:
        target, aside = self._prepared(item)
        aside.unlink(missing_ok=True)
        aside.symlink_to(item.view.link or "")
        aside.replace(target)

    def _fetch(self, item: Item, advance: Callable[[int], None]) -> None:
        """Complete the partial file, verify it, and move it into place atomically."""
        stop, view = self._stop, item.view
        target, part = self._prepared(item)
        resumed = part.exists() and part.stat().st_size
        digest = self._complete(part, item, advance, stop)
        if digest != view.sha256 and resumed:
            part.unlink()
            advance(-view.size)
            digest = self._complete(part, item, advance, stop)
        if digest != view.sha256:
            part.unlink()
            raise StorageError(f"{view.path}: the stored file is damaged (sha256 differs)")
        part.chmod(view.mode & 0o777)
        part.replace(target)

    def _complete(self, part: Path, item: Item, advance: Callable[[int], None], stop: threading.Event) -> str:
        opened = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with naming(part), os.fdopen(opened, "r+b") as file:
            digest = _digest(file)
            offset, tries = file.tell(), 0
            advance(offset)
            while offset < item.view.size and not stop.is_set():
                try:
                    for block in self._sources.read(item.view, offset):
                        file.write(block)
                        digest.update(block)
                        offset, tries = offset + len(block), 0
                        advance(len(block))
                        if stop.is_set() or offset > item.view.size:
                            break
                    else:
                        tries += 1
                except (BrokenAnswerError, TryAgainError):
                    tries += 1
                    if tries > TRIES:
                        raise
                    time.sleep(min(0.1 * 2**tries, 5))
                if tries > TRIES:
                    raise StorageError(
                        f"{item.view.path}: the stored file is cut short: {offset} of {item.view.size} bytes"
                    )
        if stop.is_set():
            raise DstackError("download interrupted; run the same command to resume")
        return digest.hexdigest()


def _digest(file: BinaryIO) -> hashlib._Hash:
    """Read the file to its end, and return its sha256."""
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
