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

from dstack.artifacts.files import flush, gathered, pieces, points_to, read, replace, storing, to_its_end
from dstack.artifacts.folder.contents import Contents
from dstack.artifacts.folder.incoming import Incoming
from dstack.artifacts.tarball import tar
from dstack.errors import NotFoundError, StorageError
from dstack.model.job import manifest as manifest_module
from dstack.model.job.manifest import MANIFEST, File, Manifest, decode, encode, objection, problem, shown


class FolderStore:
    """`<root>/<run>/<workflow>/<path>`, with `manifest.json` beside a job's files.

    Each content is stored once: `.content` has hard links by sha256. Incomplete files and trees lie in `.incoming`.
    Instances cost nothing to create, and several with the same root can work side by side.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._contents = Contents(root / ".content")
        self._incoming = root / ".incoming"

    @property
    def name(self) -> str:
        """The store's identity: no other store has this name."""
        return str(self.root)

    async def missing(self, files: Sequence[File]) -> list[File]:
        """Return the files whose content the store lacks, one file per content."""
        return await to_its_end(lambda: self._missing(files))

    async def receive(
        self, run: str, workflow: str, job: str, stream: AsyncIterator[bytes], files: Sequence[File]
    ) -> None:
        """Receive the contents of these files, one after the other. Raises StorageError for bytes that differ from
        the listing, and for too few or too many; contents that arrived before stay in the store."""
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
        """Put all files at their paths, then write the manifest. Replaces an earlier commit. Raises StorageError for
        paths that can't be stored, and if the store lacks a content."""
        await to_its_end(lambda: self._commit(manifest))
        return manifest

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        """Return the job's manifest, or None if there is none that can be read."""
        try:
            manifest = decode((self._tree(run, workflow) / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return manifest if (manifest.run, manifest.workflow) == (run, workflow) else None

    def verify(self, manifest: Manifest) -> str | None:
        """Return what is damaged or gone, in a few words, or None. Hashes only files that were touched."""
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
        """Return where a job's file is stored. Raises NotFoundError if it is not a regular file or is behind a link."""
        top = self._tree(run, workflow)
        if objection(path) is None:
            at = top / path
            above = [parent for parent in at.parents if parent.is_relative_to(top)]
            with contextlib.suppress(OSError):
                if not any(parent.is_symlink() for parent in above) and stat.S_ISREG(at.lstat().st_mode):
                    return at
        raise NotFoundError(f"{run}/{workflow} has no file {shown(path)}", hint=f"dstack artifacts list {run}")

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Return a stored file's bytes from `offset` on. Raises NotFoundError if the job has no such file."""
        stored = self.path_of(run, workflow, path)
        return pieces(read(stored, offset))

    def tar(self, manifests: Sequence[Manifest]) -> AsyncIterator[bytes]:
        """Return a tar stream of all their files, for a job that depends on them. It ends in StorageError at a file
        that does not match its manifest."""
        files: dict[str, tuple[File, Path]] = {}
        for manifest in manifests:
            top = self._tree(manifest.run, manifest.workflow)
            for file in manifest.files:
                files.setdefault(file.path, (file, top / file.path))
        return pieces(tar(files.values()))

    def conflicts(self, manifests: Sequence[Manifest]) -> str | None:
        """Return why one job can't have all of these, or None: two of them give one path different bytes."""
        return manifest_module.conflicts(manifests)

    async def remove(self, run: str, workflow: str) -> None:
        """Remove the job's artifacts, and the contents that nothing else uses."""
        await to_its_end(lambda: self._remove(run, workflow))

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Remove what a job without a manifest left, once nothing adds to it. Return its bytes."""
        return await to_its_end(lambda: self._clear(run, workflow, dry_run))

    async def unused(self, before: float, *, dry_run: bool = False) -> int:
        """Remove contents that arrived before a time (seconds since the epoch) and that no job has, as abandoned
        collections leave them. Return their bytes."""
        return await to_its_end(lambda: self._contents.unused(before, remove=not dry_run))

    async def sweep(self) -> None:
        """Remove what crashes left incomplete. Only for a starting server: nothing else may be writing."""
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
        if why := problem(manifest.files):
            raise StorageError(f"the artifacts of {manifest.workflow} can't be stored: {why}")
        aside = self._aside(manifest.workflow)
        try:
            with storing(self.root):
                self._lay(manifest, aside / "new")
                replace(target, aside / "new", aside / "old")
        finally:
            shutil.rmtree(aside)

    def _lay(self, manifest: Manifest, top: Path) -> None:
        """Create the whole tree of a job: its files and, once they are on disk, the manifest."""
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
        aside = top.parent / MANIFEST
        with aside.open("xb") as written:
            written.write(encode(manifest))
            written.flush()
            os.fsync(written.fileno())
        aside.rename(top / MANIFEST)

    def _clear(self, run: str, workflow: str, dry_run: bool) -> int:
        top = self._tree(run, workflow)
        if not top.is_dir() or (top / MANIFEST).exists():
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
        with contextlib.suppress(OSError):  # it holds another workflow's artifacts, or is gone
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
                raise StorageError(f"{shown(name)} is not a valid name for a run or a workflow in the store")
        return run, workflow
