"""The artifact store in a folder of the server's own machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from dstack.artifacts.files import counted, gathered, in_thread, pieces, read, replace, storing, to_its_end
from dstack.artifacts.folder.contents import Contents, folder_mode, incoming
from dstack.artifacts.store import (
    STORAGES,
    JobFolder,
    Location,
    PresignedUrls,
    Tell,
    check_paths,
    no_file,
    untold,
)
from dstack.artifacts.tarball import Entry
from dstack.commands.artifacts.collect import fetch
from dstack.errors import StorageError, UsageError
from dstack.model.job.manifest import MANIFEST, File, Manifest, decode, encode, objection, shown
from dstack.plumbing.disk import sync, sync_all
from dstack.plumbing.space import require


class FolderStore:
    """Implements `ArtifactStore` at `<root>/<run>/<workflow>/<path>`, with `manifest.json` beside a job's files. Each
    content is stored once: `.content` has hard links by sha256. Incomplete files and trees lie in `.incoming`.
    Instances cost nothing to create, and several with the same root can work side by side."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._contents = Contents(root / ".content")
        self._incoming = root / ".incoming"

    @classmethod
    def at(cls, location: Location) -> FolderStore:
        """Open the store in a folder. Raises UsageError if an endpoint is given."""
        if location.endpoint:
            raise UsageError(f"an endpoint needs a bucket, and '{location.url}' is not one", hint=STORAGES)
        return cls(Path(location.url))

    @property
    def url(self) -> str:
        return str(self.root)

    @property
    def name(self) -> str:
        return self.url

    def check(self) -> None:
        if not self.root.is_absolute():
            raise UsageError(f"'{self.root}' is not a valid storage", hint=STORAGES)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.root).close()
        except OSError as error:
            raise UsageError(
                f"{self.root} can't be the storage: {error.strerror}", hint="choose another folder"
            ) from error

    def absent(self) -> str | None:
        """Return why the store is gone: nobody creates it again, and a disk may be mounted there later."""
        return None if self.root.is_dir() else "the folder does not exist"

    @in_thread
    def sweep(self, before: float) -> None:
        for left in self._incoming.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # its collection has just ended
                if max(path.lstat().st_mtime for path in (left, *left.rglob("*"))) < before:
                    shutil.rmtree(left, ignore_errors=True)

    async def reach(self, folder: JobFolder) -> None:
        """Do nothing: the server fetches the files."""

    async def collect(self, folder: JobFolder, files: Sequence[File], tell: Tell = untold) -> None:
        """Fetch the contents that the store lacks. Every one that arrives whole is kept."""
        missing = await self.missing(files)
        if missing:
            sent = folder.host.stream(fetch(folder.context, folder.attempt, folder.tree, missing))
            await self.receive(folder.run, folder.workflow, sent, missing, tell)

    async def abandon(self, folder: JobFolder) -> None:
        """Do nothing: a fetch ends with the connection that it uses."""

    async def copy(self, run: str, workflow: str, files: Sequence[File]) -> list[File]:
        """Return the files whose content the store lacks. The commit links all others to theirs."""
        lacking = {(file.sha256, file.size) for file in await self.missing(files)}
        return [file for file in files if file.link is None and (file.sha256, file.size) in lacking]

    @in_thread
    def missing(self, files: Sequence[File]) -> list[File]:
        """Return the files whose content the store lacks, one file per content."""
        wanted: dict[tuple[str, int], File] = {}
        for file in files:
            if file.link is None:
                wanted.setdefault((file.sha256, file.size), file)
        with storing(self.root):
            return [file for file in wanted.values() if not self._contents.has(file)]

    async def receive(
        self,
        run: str,
        workflow: str,
        stream: AsyncIterator[bytes],
        files: Sequence[File],
        tell: Tell = untold,
    ) -> None:
        """Receive the contents of these files, one after the other. Raises StorageError for bytes that differ from
        the listing, and for too few or too many; contents that arrived before stay in the store."""
        size = sum(file.size for file in files)
        arriving = counted(stream, size, tell)
        aside = await to_its_end(lambda: self._aside(self._tree(run, workflow).name, size))
        taking = incoming(aside, self._contents, files)
        try:
            await self._step(lambda: next(taking))
            async with contextlib.aclosing(gathered(arriving)) as arrived:
                async for data in arrived:
                    await self._step(partial(taking.send, data))
            await self._step(lambda: taking.send(b""))
        finally:
            taking.close()
            await to_its_end(lambda: shutil.rmtree(aside))

    @in_thread
    def _step(self, step: Callable[[], None]) -> None:
        with storing(self.root), contextlib.suppress(StopIteration):
            step()

    @in_thread
    def commit(self, manifest: Manifest) -> Manifest:
        target = self._tree(manifest.run, manifest.workflow)
        check_paths(manifest)
        aside = self._aside(manifest.workflow)
        try:
            with storing(self.root):
                self._lay(manifest, aside / "new")
                replace(target, aside / "new", aside / "old")
        finally:
            shutil.rmtree(aside)
        return manifest

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        try:
            manifest = decode((self._tree(run, workflow) / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        return manifest if (manifest.run, manifest.workflow) == (run, workflow) else None

    def verify(self, manifest: Manifest) -> str | None:
        top = self._tree(manifest.run, manifest.workflow)
        for file in manifest.files:
            stored = top / file.path
            if file.link is None:
                damage = self._contents.damage(file, stored)
            else:
                same = stored.is_symlink() and os.readlink(stored) == file.link
                damage = None if same else f"the link {shown(file.path)} is gone or changed"
            if damage:
                return damage
        return None

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        top = self._tree(run, workflow)
        if objection(path) is None:
            at = top / path
            above = [parent for parent in at.parents if parent.is_relative_to(top)]
            with contextlib.suppress(OSError):
                if not any(parent.is_symlink() for parent in above) and stat.S_ISREG(at.lstat().st_mode):
                    return pieces(read(at, offset))
        raise no_file(run, workflow, path)

    async def presign(self, run: str, workflow: str, paths: Sequence[str]) -> PresignedUrls | None:
        """Return None: files in a folder have no URLs."""
        return None

    async def place(self, folder: JobFolder, manifests: Sequence[Manifest], *, beside: bool) -> list[Entry] | None:
        """Return all files: the host can't fetch from the server."""
        return self.entries(manifests)

    def entries(self, manifests: Sequence[Manifest]) -> list[Entry]:
        """Return all their files, one for each path."""
        files: dict[str, Entry] = {}
        for manifest in manifests:
            top = self._tree(manifest.run, manifest.workflow)
            for file in manifest.files:
                files.setdefault(file.path, (file, top / file.path))
        return list(files.values())

    @in_thread
    def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        top = self._tree(run, workflow)
        if not top.is_dir() or (top / MANIFEST).exists():
            return 0
        size = sum(path.lstat().st_size for path in top.rglob("*"))
        if not dry_run:
            self._remove(run, workflow)
        return size

    @in_thread
    def unused(self, before: float, *, dry_run: bool = False) -> int:
        return self._contents.unused(before, remove=not dry_run)

    @in_thread
    def remove(self, run: str, workflow: str) -> None:
        self._remove(run, workflow)

    def _remove(self, run: str, workflow: str) -> None:
        manifest = self.manifest(run, workflow)
        target = self._tree(run, workflow)
        if target.exists():
            aside = self._aside(workflow)
            target.rename(aside / "old")
            sync(target.parent)
            shutil.rmtree(aside)
        self._contents.forget(file for file in (manifest.files if manifest else ()) if file.link is None)
        with contextlib.suppress(OSError):  # it holds another workflow's artifacts, or is gone
            target.parent.rmdir()

    def _lay(self, manifest: Manifest, top: Path) -> None:
        """Create the whole tree of a job, with its manifest, and write it to disk."""
        top.mkdir()
        for folder in manifest.folders:
            (top / folder.path).mkdir(parents=True, exist_ok=True)
        folders = {top, *(top / folder.path for folder in manifest.folders)}
        for file in manifest.files:
            target = top / file.path
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
            if file.link is None:
                self._contents.place(file, target)
            else:
                target.symlink_to(file.link)
        for folder in manifest.folders:
            (top / folder.path).chmod(folder_mode(folder))
        (top / MANIFEST).write_bytes(encode(manifest))
        sync_all(self.root)

    def _aside(self, name: str, size: int = 0) -> Path:
        """Make a folder for what is incomplete. Raises StorageError if the disk has no space for `size` more bytes."""
        with storing(self.root):
            self._incoming.mkdir(parents=True, exist_ok=True)
            if size:
                require(self.root, size)
            return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self._incoming))

    def _tree(self, run: str, workflow: str) -> Path:
        for name in (run, workflow):
            if not name or name.startswith(".") or "/" in name or "\0" in name or len(name) > 200:
                raise StorageError(f"{shown(name)} is not a valid name for a run or a workflow in the store")
        return self.root / run / workflow
