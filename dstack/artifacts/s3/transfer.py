"""Brings a job's files into a bucket: S3 copies what other objects have, and the host sends the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus

from dstack.artifacts.files import to_its_end
from dstack.artifacts.s3.objects import Objects
from dstack.artifacts.s3.uploads import Sent, Uploading, Uploads
from dstack.artifacts.store import ContentIndex, JobFolder, Tell
from dstack.commands.artifacts.upload import Upload, sums, upload
from dstack.commands.host import ask
from dstack.errors import StorageError
from dstack.model.job.manifest import File
from dstack.model.job.pieces import Piece, Stored, Sums

AT_ONCE = 16
"""Copies at a time."""


class Copies:
    """Gives one job contents that other objects of the bucket have: S3 copies them, and nothing is sent. `storage` is
    the store's name in the index."""

    def __init__(self, storage: str, objects: Objects, index: ContentIndex) -> None:
        self.storage = storage
        self.objects = objects
        self.index = index

    async def make(self, files: Sequence[File]) -> list[File]:
        """Copy what the store already has elsewhere; return the files that still have to be sent or checked."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def copy(file: File) -> File | None:
            async with gate:
                return None if await self.copy(file) else file

        return [file for file in await asyncio.gather(*map(copy, files)) if file]

    async def copy(self, file: File) -> bool:
        """Copy one file's content from another object, if one has it unchanged."""
        if self.recorded(file):
            return False
        own = self.objects.key(file.path)
        for source in self.index.find(self.storage, file.sha256, file.size):
            etag = await to_its_end(partial(self.objects.copy, own, source))
            if etag is not None:
                self.record([(file, etag)])
                return True
            self.index.forget(self.storage, [source.key])
        return False

    def recorded(self, file: File) -> Stored | None:
        """Return the job's own object of this file as it was last seen, or None."""
        own = self.objects.key(file.path)
        found = self.index.find(self.storage, file.sha256, file.size)
        return next((stored for stored in found if stored.key == own), None)

    def record(self, seen: Iterable[tuple[File, str]]) -> None:
        """Record the job's own objects of these files, with their ETags."""
        objects = [(file.sha256, Stored(self.objects.key(file.path), file.size, etag)) for file, etag in seen]
        self.index.add(self.storage, objects)


class Uploader:
    """Has a host upload a job's files. Repeatable; what has arrived is never sent again. The state of an upload is on
    the host and in S3: the host continues by itself, and a new server asks both."""

    def __init__(self, folder: JobFolder, uploads: Uploads, copies: Copies, tell: Tell) -> None:
        self.folder = folder
        self.uploads = uploads
        self.copies = copies
        self.tell = tell

    async def run(self, files: Sequence[File]) -> None:
        """Put all these regular files into the store: each content once, then copies of it."""
        while (await self.asked()).running:
            continue  # an upload that was started earlier would overwrite what is stored now
        each = {(file.sha256, file.size): file for file in reversed(files)}
        await self.sent(await self.copies.make(list(each.values())))
        first = {file.path for file in each.values()}
        await self.sent(await self.copies.make([file for file in files if file.path not in first]))

    async def sent(self, files: Sequence[File]) -> None:
        """Have the host send these files, until S3 has all of them."""
        if not files:
            return
        folder = self.folder
        hashed = await ask(folder.host, sums(folder.context, folder.attempt, folder.tree, files))
        answered: Sent = frozenset()
        signed, plan = time.monotonic(), await self.planned(files, hashed, answered)
        while plan.pieces:
            report = await self.round(plan.pieces)
            answered |= {plan.pieces[index].name for index in report.sent}
            expired = time.monotonic() - signed > self.uploads.expires
            signed, before, plan = time.monotonic(), plan, await self.planned(files, hashed, answered)
            if weight(plan) >= weight(before) and not expired:
                raise StorageError(self.problem(report, plan.pieces))

    async def planned(self, files: Sequence[File], hashed: Mapping[str, Sums], answered: Sent) -> Uploading:
        """Plan what S3 lacks, and record what it has."""
        recorded = {file.path: self.copies.recorded(file) for file in files}
        known = {path: stored.etag for path, stored in recorded.items() if stored}
        plan = await to_its_end(lambda: self.uploads.plan(files, hashed, answered, known))
        arrived = [(file, plan.arrived[file.path]) for file in files if file.path in plan.arrived]
        self.copies.record([(file, etag) for file, etag in arrived if known.get(file.path) != etag])
        return plan

    async def round(self, pieces: Sequence[Piece]) -> Upload:
        """Have the host upload these pieces, and wait until it is done."""
        report = await self.asked(pieces)
        if report.other:
            raise StorageError("another upload of the same job is in progress on the runner")
        arrived: frozenset[int] = frozenset()
        while report.running:
            left = sum(piece.length for index, piece in enumerate(pieces) if index not in report.sent)
            failing = (report.refused or report.trouble) and report.sent <= arrived
            self.tell(left, self.problem(report, pieces) if failing else "")
            arrived, report = report.sent, await self.asked()
        return report

    async def asked(self, pieces: Sequence[Piece] = ()) -> Upload:
        return await ask(self.folder.host, upload(self.folder.context, self.folder.attempt, self.folder.tree, pieces))

    def problem(self, report: Upload, pieces: Sequence[Piece]) -> str:
        """Why nothing arrived."""
        runner = self.folder.runner
        codes = sorted({code for code in report.refused.values() if code})
        if codes:
            return f"S3 refuses the upload from {runner} with status {', '.join(map(status, codes))}"
        error = report.trouble or "no error message"
        return f"{runner} can't send {len(pieces)} pieces to S3: {error}"


def status(code: int) -> str:
    """The status with its meaning."""
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"{code} ({known[code]})" if code in known else str(code)


def weight(plan: Uploading) -> int:
    """How much is left to send; the number of pieces is added, so that empty files count, too."""
    return sum(piece.length for piece in plan.pieces) + len(plan.pieces)
