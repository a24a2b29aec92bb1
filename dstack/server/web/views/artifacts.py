"""The artifacts of a run: a folder at a time, previews, and files to download."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from dstack.engine.engine import Engine
from dstack.errors import NotFoundError, StorageError
from dstack.model.job.job import Job
from dstack.model.job.manifest import PARTIAL, File, Manifest
from dstack.server.web.views.run import RunPages, attached

PREVIEW = 64 * 1024
"""Bytes of a text that a page shows."""
ROWS, CELLS = 200, 50
"""Most rows and columns of a CSV file that a page shows."""
ENTRIES = 1000
"""Most files and folders of a folder that a page shows."""
PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
"""What a browser may show as a picture. Not SVG, which is a program."""
LARGEST_PICTURE = 20_000_000


@dataclass(frozen=True)
class ListedArtifact:
    """A file, or a folder with all files in it. Sizes are in bytes."""

    name: str
    path: str
    folder: bool
    size: int
    files: int = 1
    link: str | None = None


@dataclass(frozen=True)
class FilePreview:
    """The beginning of a file: a `picture`, a text, or rows of a table."""

    file: File
    picture: bool = False
    text: str | None = None
    rows: list[list[str]] | None = None
    cut: bool = False


@dataclass
class ArtifactPages:
    engine: Engine
    runs: RunPages

    async def folder(
        self, name: str, job: str | None = None, path: str = "", view: str | None = None
    ) -> dict[str, Any]:
        """Show a folder of a job's artifacts, and with `view` the beginning of a file."""
        run, jobs, head = self.runs.head(name)
        stored: list[tuple[Job, Manifest]] = []
        trouble: StorageError | None = None
        for each in jobs:
            try:
                if manifest := await self.engine.context.artifacts.left(self.source(each)):
                    stored.append((each, manifest))
            except StorageError as error:
                trouble = error
        wanted = [each for each in stored if job in (each[0].id, each[0].workflow)]
        if job is not None and not wanted:
            raise NotFoundError(f"{run.name} has no stored artifacts of '{job}'")
        named = [each for each in stored if each[0].workflow == run.workflow and each[1].files]
        chosen = next(iter([*wanted, *named, *stored]), None)
        entries = listed(chosen[1].files, path.strip("/")) if chosen else []
        return {
            **head,
            "stored": stored,
            "chosen": chosen[0] if chosen else None,
            "manifest": chosen[1] if chosen else None,
            "partial": bool(chosen and chosen[1].status == PARTIAL),
            "path": path.strip("/"),
            "entries": entries[:ENTRIES],
            "more": max(0, len(entries) - ENTRIES),
            "preview": await self.preview(chosen[0], chosen[1], view) if chosen and view else None,
            "trouble": trouble,
        }

    def source(self, job: Job) -> Job:
        return self.engine.store.jobs.require(job.source)

    async def preview(self, job: Job, manifest: Manifest, path: str) -> FilePreview:
        file = found(manifest, path)
        ending = posixpath.splitext(path)[1].lower()
        if file.link is not None:
            return FilePreview(file)
        if ending in PICTURES and file.size <= LARGEST_PICTURE:
            return FilePreview(file, picture=True)
        data = await self.beginning(job, path)
        if b"\0" in data[:8192]:
            return FilePreview(file)
        text, cut = data.decode(errors="replace"), file.size > len(data)
        rows = table(text, "\t" if ending == ".tsv" else ",") if ending in (".csv", ".tsv") else None
        return FilePreview(file, text=text, rows=rows, cut=cut or bool(rows and len(rows) == ROWS))

    async def beginning(self, job: Job, path: str) -> bytes:
        data = b""
        async for piece in await self.opened(job, path):
            data += piece
            if len(data) >= PREVIEW:
                break
        return data[:PREVIEW]

    async def opened(self, job: Job, path: str) -> AsyncIterator[bytes]:
        source = self.source(job)
        storage = await self.engine.context.artifacts.home(source)
        return storage.open(source.run, source.workflow, path)

    async def file(self, name: str, job: str, path: str, view: bool = False) -> Response:
        """Send a file: to be stored or, with `view`, a picture to be shown."""
        _, jobs, _ = self.runs.head(name)
        of = next((each for each in jobs if job in (each.id, each.workflow)), None)
        manifest = await self.engine.context.artifacts.left(self.source(of)) if of else None
        if of is None or manifest is None:
            raise NotFoundError(f"{name} has no stored artifacts of '{job}'")
        file = found(manifest, path)
        headers = attached(posixpath.basename(path))
        picture = PICTURES.get(posixpath.splitext(path)[1].lower())
        if view and picture:
            headers = {**headers, "Content-Type": picture, "Content-Disposition": "inline"}
        opened = await self.opened(of, path)
        first = await anext(opened, b"")  # what is wrong with the storage can still become a page
        return StreamingResponse(joined(first, opened), headers={**headers, "Content-Length": str(file.size)})


def found(manifest: Manifest, path: str) -> File:
    """Return a file of a manifest. Raises NotFoundError."""
    file = next((file for file in manifest.files if file.path == path), None)
    if file is None:
        raise NotFoundError(f"{manifest.run}/{manifest.workflow} has no file '{path}'")
    return file


def listed(files: Sequence[File], folder: str) -> list[ListedArtifact]:
    """Return what is in a folder: folders first, each with the number and size of all files in it."""
    prefix = f"{folder}/" if folder else ""
    folders: dict[str, tuple[int, int]] = {}
    plain: list[ListedArtifact] = []
    for file in files:
        if not file.path.startswith(prefix):
            continue
        name, slash, _ = file.path[len(prefix) :].partition("/")
        if slash:
            count, size = folders.get(name, (0, 0))
            folders[name] = count + 1, size + file.size
        else:
            plain.append(ListedArtifact(name, file.path, False, file.size, link=file.link))
    inside = [ListedArtifact(name, prefix + name, True, size, count) for name, (count, size) in folders.items()]
    return [*sorted(inside, key=lambda entry: entry.name), *sorted(plain, key=lambda entry: entry.name)]


def table(text: str, delimiter: str) -> list[list[str]] | None:
    """Return the first rows of a table; None for a text that is none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[list[str]] = []
    try:
        for row in reader:
            rows.append([cell[:200] for cell in row[:CELLS]])
            if len(rows) == ROWS:
                break
    except csv.Error:
        return None
    return rows


async def joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the first piece, which was already read, then the rest."""
    yield first
    async for piece in rest:
        yield piece
