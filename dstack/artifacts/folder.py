"""The artifact store in a folder of the server's own machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from dstack.artifacts import document
from dstack.artifacts.contents import Contents
from dstack.artifacts.disk import flush, points_to, read, replace, storing
from dstack.artifacts.incoming import Incoming
from dstack.artifacts.tarball import tar
from dstack.artifacts.threads import gathered, pieces, to_its_end
from dstack.errors import NotFoundError, StorageError
from dstack.model import tree
from dstack.model.manifest import File, Manifest
from dstack.model.tree import shown


class FolderStore:
    """`<root>/<run>/<workflow>/<path>`, with `manifest.json` beside a job's files.

    Each content is stored once: `.content` has hard links by sha256. What is not whole yet lies in `.incoming`.
    Making one costs nothing, and several of the same root don't disturb each other.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._contents = Contents(root / ".content")
        self._incoming = root / ".incoming"

    @property
    def name(self) -> str:
        """What tells it from other stores."""
        return str(self.root)

    async def missing(self, files: Sequence[File]) -> list[File]:
        """Of these files, those whose content is not in the store: each content once."""
        return await to_its_end(lambda: self._missing(files))

    async def receive(
        self, run: str, workflow: str, job: str, stream: AsyncIterator[bytes], files: Sequence[File]
    ) -> None:
        """Take the contents of these files, which come one after the other. Contents that arrived whole stay, also
        when a later one raises StorageError: for other bytes than were listed, for too few or too many."""
        aside = await to_its_end(lambda: self._aside(self._names(run, workflow)[1]))
        try:
            incoming = await to_its_end(lambda: self._opened(aside, files))
            try:
                async with contextlib.aclosing(gathered(stream)) as arrived:
                    async for data in arrived:
                        await to_its_end(partial(self._written, incoming, data))
                incoming.end()
            finally:
                await to_its_end(incoming.close)
        finally:
            await to_its_end(lambda: shutil.rmtree(aside))

    async def commit(self, manifest: Manifest) -> Manifest:
        """Lay all files at their paths, then write the manifest. What an earlier commit laid there is replaced.
        Raises StorageError for paths that can't be, and where the store lacks a content."""
        await to_its_end(lambda: self._commit(manifest))
        return manifest

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        """What the job left; None where there is no manifest, or none that can be read."""
        try:
            found = document.decode((self._tree(run, workflow) / tree.MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return found if (found.run, found.workflow) == (run, workflow) else None

    def verify(self, manifest: Manifest) -> str | None:
        """What of it is damaged or gone, in a few words, or None. It hashes only what was touched."""
        top = self._tree(manifest.run, manifest.workflow)
        for file in manifest.files:
            stored = top / file.path
            if file.link is None:
                damage = self._contents.damage(file, stored)
            else:
                damage = None if points_to(stored, file.link) else f"the link {shown(file.path)} is gone or changed"
            if damage:
                return damage
        return None

    def path_of(self, run: str, workflow: str, path: str) -> Path:
        """Where a job's file is stored. Raises NotFoundError for what is no regular file, or lies behind a link."""
        top = self._tree(run, workflow)
        if tree.objection(path) is None:
            at = top / path
            above = [parent for parent in at.parents if parent.is_relative_to(top)]
            with contextlib.suppress(OSError):
                if not any(parent.is_symlink() for parent in above) and stat.S_ISREG(at.lstat().st_mode):
                    return at
        raise NotFoundError(f"{run}/{workflow} has no file {shown(path)}", hint=f"dstack artifacts list {run}")

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """A stored file's bytes from `offset` on. Raises NotFoundError for what is no file of the job's."""
        stored = self.path_of(run, workflow, path)
        return pieces(read(stored, offset))

    def tar(self, manifests: Sequence[Manifest]) -> AsyncIterator[bytes]:
        """A tar stream of all their files, for a job that depends on them. It breaks off with StorageError where a
        file's bytes are not those of the manifest."""
        files: dict[str, tuple[File, Path]] = {}
        for manifest in manifests:
            top = self._tree(manifest.run, manifest.workflow)
            for file in manifest.files:
                files.setdefault(file.path, (file, top / file.path))
        return pieces(tar(files.values()))

    def conflicts(self, manifests: Sequence[Manifest]) -> str | None:
        """Why these can't be given to one job, or None: two give one path different bytes."""
        return tree.conflicts(manifests)

    async def remove(self, run: str, workflow: str) -> None:
        """Remove what the job left, and the contents that nothing else uses."""
        await to_its_end(lambda: self._remove(run, workflow))

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Remove what is there of a job without a manifest, which nobody adds to any more; its bytes."""
        return await to_its_end(lambda: self._clear(run, workflow, dry_run))

    async def unused(self, before: float, *, dry_run: bool = False) -> int:
        """Remove contents that arrived before a time (seconds since the epoch) and that no job has: of collections
        that were given up. Their bytes."""
        return await to_its_end(lambda: self._contents.unused(before, remove=not dry_run))

    async def sweep(self) -> None:
        """Remove what crashes left unfinished. For a server that begins: nothing else may be writing."""
        await to_its_end(lambda: shutil.rmtree(self._incoming, ignore_errors=True))

    def _missing(self, files: Sequence[File]) -> list[File]:
        wanted: dict[tuple[str, int], File] = {}
        for file in files:
            if file.link is None:
                wanted.setdefault((file.sha256, file.size), file)
        with storing(self.root):
            return [file for file in wanted.values() if not self._contents.has(file)]

    def _opened(self, aside: Path, files: Sequence[File]) -> Incoming:
        with storing(self.root):
            return Incoming(aside, self._contents, files)

    def _written(self, incoming: Incoming, data: bytes) -> None:
        with storing(self.root):
            incoming.write(data)

    def _commit(self, manifest: Manifest) -> None:
        target = self._tree(manifest.run, manifest.workflow)
        if why := tree.problem(manifest.files):
            raise StorageError(f"the artifacts of {manifest.workflow} can't be stored: {why}")
        aside = self._aside(manifest.workflow)
        try:
            with storing(self.root):
                self._lay(manifest, aside / "new")
                replace(target, aside / "new", aside / "old")
        finally:
            shutil.rmtree(aside)

    def _lay(self, manifest: Manifest, top: Path) -> None:
        """The whole tree of a job: its files, and when they are on the disk, the manifest."""
        top.mkdir()
        folders = {top}
        for file in manifest.files:
            target = top / file.path
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
            if file.link is None:
                self._contents.place(file, target)
            else:
                target.symlink_to(file.link)
        flush(self.root)
        aside = top.parent / tree.MANIFEST
        with aside.open("xb") as written:
            written.write(document.encode(manifest))
            written.flush()
            os.fsync(written.fileno())
        aside.rename(top / tree.MANIFEST)

    def _clear(self, run: str, workflow: str, dry_run: bool) -> int:
        top = self._tree(run, workflow)
        if not top.is_dir() or (top / tree.MANIFEST).exists():
            return 0
        size = sum(path.lstat().st_size for path in top.rglob("*"))
        if not dry_run:
            self._remove(run, workflow)
        return size

    def _remove(self, run: str, workflow: str) -> None:
        manifest = self.manifest(run, workflow)
        target = self._tree(run, workflow)
        if target.exists():
            aside = self._aside(workflow)
            target.rename(aside / "old")
            shutil.rmtree(aside)
        self._contents.forget(file for file in (manifest.files if manifest else ()) if file.link is None)
        with contextlib.suppress(OSError):  # another workflow's artifacts are there, or it is gone
            target.parent.rmdir()

    def _aside(self, name: str) -> Path:
        with storing(self.root):
            self._incoming.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self._incoming))

    def _tree(self, run: str, workflow: str) -> Path:
        return self.root.joinpath(*self._names(run, workflow))

    @staticmethod
    def _names(run: str, workflow: str) -> tuple[str, str]:
        for name in (run, workflow):
            if not name or name.startswith(".") or "/" in name or "\0" in name or len(name) > 200:
                raise StorageError(f"{shown(name)} can't name a run or a workflow in the store")
        return run, workflow
