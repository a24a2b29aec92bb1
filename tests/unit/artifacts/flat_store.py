"""A third store, as small as possible: all contents and manifests are files in one folder, at flat:///FOLDER."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from dstack.artifacts.files import pieces, read
from dstack.artifacts.store import JobFolder, Location, PresignedUrls, Tell, untold
from dstack.artifacts.tarball import Entry
from dstack.commands.artifacts.collect import fetch
from dstack.errors import NotFoundError, StorageError, UsageError
from dstack.model.job.manifest import File, Manifest, decode, encode, problem


class FlatStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def at(cls, location: Location) -> FlatStore:
        return cls(Path(location.url.removeprefix("flat://")))

    @property
    def url(self) -> str:
        return f"flat://{self.folder}"

    @property
    def name(self) -> str:
        return self.url

    def check(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.url} can't be the storage: {error.strerror}") from error

    def absent(self) -> str | None:
        return None if self.folder.is_dir() else "the folder does not exist"

    async def sweep(self, before: float) -> None:
        pass

    async def reach(self, folder: JobFolder) -> None:
        pass

    async def collect(self, folder: JobFolder, files: Sequence[File], tell: Tell = untold) -> None:
        lacking = await self.copy(folder.run, folder.workflow, files)
        if not lacking:
            return
        command = fetch(folder.context, folder.attempt, folder.tree, lacking)
        data = b"".join([piece async for piece in folder.host.stream(command)])
        for file in lacking:
            content, data = data[: file.size], data[file.size :]
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise StorageError(f"{file.path} does not match its checksum")
            (self.folder / file.sha256).write_bytes(content)
            tell(len(data))

    async def abandon(self, folder: JobFolder) -> None:
        pass

    async def copy(self, run: str, workflow: str, files: Sequence[File]) -> list[File]:
        return [file for file in files if file.link is None and not (self.folder / file.sha256).exists()]

    async def commit(self, manifest: Manifest) -> Manifest:
        if why := problem(manifest.files, manifest.folders):
            raise StorageError(why)
        for file in await self.copy(manifest.run, manifest.workflow, manifest.files):
            raise StorageError(f"{file.path} is not in the store")
        self._path(manifest.run, manifest.workflow).write_bytes(encode(manifest))
        return manifest

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        path = self._path(run, workflow)
        return decode(path.read_bytes()) if path.exists() else None

    def verify(self, manifest: Manifest) -> str | None:
        for file in manifest.files:
            if file.link is None and not (self.folder / file.sha256).exists():
                return f"{file.path} is gone"
        return None

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        manifest = self.manifest(run, workflow)
        for file in manifest.files if manifest else ():
            if file.path == path and file.link is None:
                return pieces(read(self.folder / file.sha256, offset))
        raise NotFoundError(f"{run}/{workflow} has no file {path}")

    async def presign(self, run: str, workflow: str, paths: Sequence[str]) -> PresignedUrls | None:
        return None

    async def place(self, folder: JobFolder, manifests: Sequence[Manifest], *, beside: bool) -> list[Entry] | None:
        files = {file.path: file for manifest in manifests for file in manifest.files}
        return [(file, self._blocks(file)) for file in files.values()]

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        return 0

    async def unused(self, before: float, *, dry_run: bool = False) -> int:
        manifests = [decode(path.read_bytes()) for path in self.folder.glob("*.json")]
        used = {file.sha256 for manifest in manifests for file in manifest.files}
        found = [path for path in self.folder.iterdir() if path.suffix != ".json" and path.name not in used]
        size = sum(path.stat().st_size for path in found)
        for path in found if not dry_run else ():
            path.unlink()
        return size

    async def remove(self, run: str, workflow: str) -> None:
        self._path(run, workflow).unlink(missing_ok=True)
        await self.unused(0)

    def _path(self, run: str, workflow: str) -> Path:
        return self.folder / f"{run}.{workflow}.json"

    def _blocks(self, file: File) -> Callable[[], Iterator[bytes]]:
        return lambda: read(self.folder / file.sha256, 0) if file.link is None else iter(())
