"""Has a host exchange files with a bucket directly, by presigned URLs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from dstack.artifacts.files import to_its_end
from dstack.artifacts.s3.copies import Copies
from dstack.artifacts.s3.uploads import Sent, Uploading, Uploads
from dstack.artifacts.store import JobFolder
from dstack.commands.artifacts.fetch_dependencies import gather
from dstack.commands.artifacts.upload import Upload, reach, sums, upload, uploading
from dstack.commands.host import ask
from dstack.errors import CommandError, HostError, StorageError
from dstack.model.job.manifest import File
from dstack.model.job.pieces import Piece, Sums, total
from dstack.model.job.reasons import ReasonCode

REACH = 60.0
"""Seconds for a host to get an answer from the storage."""

log = logging.getLogger("dstack.artifacts")


class Uploader:
    """Has a host upload a job's files. Repeatable; what has arrived is never sent again.

    The state of an upload is on the host and in S3: the host continues by itself, and a new server asks both. `tell` is
    called with the bytes that are left.
    """

    def __init__(self, folder: JobFolder, uploads: Uploads, copies: Copies, tell: Callable[[int], None]) -> None:
        self.folder = folder
        self.uploads = uploads
        self.copies = copies
        self.tell = tell

    async def run(self, files: Sequence[File]) -> None:
        """Put all these regular files into the store: each content once, then copies of it."""
        await self.earlier()
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

    async def earlier(self) -> None:
        """Wait for the end of an upload that was started earlier: it would overwrite what is stored now."""
        while (await self.asked(None)).running:
            continue

    async def round(self, pieces: Sequence[Piece]) -> Upload:
        """Have the host upload these pieces, and wait until it is done."""
        report = await self.asked(pieces)
        if report.other:
            raise StorageError("another upload of the same job is in progress on the runner")
        while report.running:
            self.tell(total([piece for index, piece in enumerate(pieces) if index not in report.sent]))
            report = await self.asked(None)
        return report

    async def asked(self, pieces: Sequence[Piece] | None) -> Upload:
        context, attempt, tree = self.folder.context, self.folder.attempt, self.folder.tree
        command = uploading(context, attempt) if pieces is None else upload(context, attempt, tree, pieces)
        return await ask(self.folder.host, command)

    def problem(self, report: Upload, pieces: Sequence[Piece]) -> str:
        """Why nothing arrived."""
        runner = self.folder.runner
        codes = sorted({code for code in report.refused.values() if code})
        if codes:
            return f"S3 refuses the upload from {runner} with status {', '.join(map(str, codes))}"
        error = report.trouble or "no error message"
        return f"{runner} can't send {len(pieces)} pieces to S3: {error}"


def weight(plan: Uploading) -> int:
    """How much is left to send; the number of pieces is added, so that empty files count, too."""
    return total(plan.pieces) + len(plan.pieces)


async def reached(folder: JobFolder, url: str, storage: str) -> None:
    """Raise HostError if the host gets no answer from a URL of the storage."""
    try:
        await ask(folder.host, reach(folder.context, url), timeout=REACH)
    except CommandError as error:
        raise HostError(
            f"{folder.runner} can't reach the storage {storage}, so the job's artifacts would be lost:"
            f" {error.stderr.strip()}",
            hint="let the machine connect to it, or choose another storage: dstack config --storage URL",
            code=ReasonCode.STORAGE_UNAVAILABLE,
        ) from error


async def fetched(folder: JobFolder, files: Sequence[File], urls: Mapping[str, str], *, beside: bool) -> bool:
    """Have the host fetch files from their URLs, `beside` those that are already there. Returns False if it can't."""
    try:
        await ask(folder.host, gather(folder.context, folder.attempt, files, urls, beside=beside))
    except CommandError as error:
        log.warning("job %s: %s; the server sends the artifacts itself", folder.job, error.message)
        return False
    return True
