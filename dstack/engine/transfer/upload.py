"""Has a runner upload a job's artifacts straight to object storage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from dstack.artifacts.s3.store import S3Store
from dstack.artifacts.s3.uploads import Uploading
from dstack.commands.artifacts.collect import made
from dstack.commands.artifacts.upload import Upload, sums, upload, uploading
from dstack.commands.host import ask
from dstack.engine.context import Context
from dstack.errors import StorageError
from dstack.model.job.job import Job
from dstack.model.job.manifest import File
from dstack.model.job.pieces import Piece, Stored, Sums, total
from dstack.model.paths import attempt_id
from dstack.model.runner.runner import Runner

ANSWER = 120.0
"""Seconds that an answer may take on top of the time that the runner was told to wait."""
COPIES = 16
"""Copies inside the store at a time."""


class Uploader:
    """Uploads a job's files to the store. Repeatable; what has arrived is never sent again.

    The state of an upload is on the runner and in S3: the runner continues by itself, and a new server asks both.
    `tree` is the folder of the files inside the job's folder; None for the files of a job that has ended. `tell` is
    called with the bytes that are left.
    """

    def __init__(
        self,
        context: Context,
        job: Job,
        runner: Runner,
        storage: S3Store,
        tree: str | None = None,
        tell: Callable[[int], None] = lambda left: None,
    ) -> None:
        self.context = context
        self.job = job
        self.runner = runner
        self.storage = storage
        self.tell = tell
        self.host_context = context.fleet.host_context(runner)
        self.attempt = attempt_id(job.id, job.attempt)
        self.tree = made(context.store.runs.require(job.run).snapshot.project) if tree is None else tree

    async def run(self, files: Sequence[File]) -> None:
        """Put all these files into the store. Raises StorageError or HostError, after which it may be tried again."""
        regular = [file for file in files if file.link is None]
        each = {(file.sha256, file.size): file for file in reversed(regular)}
        missing = await self.copied(list(each.values()))
        await self.sent(missing)
        first = {file.path for file in each.values()}
        left = await self.copied([file for file in regular if file.path not in first])
        await self.sent(left)

    async def copied(self, files: Sequence[File]) -> list[File]:
        """Copy what the store already has elsewhere; return the files that still have to be sent or checked."""
        gate = asyncio.Semaphore(COPIES)

        async def copy(file: File) -> File | None:
            async with gate:
                return None if await self.copy(file) else file

        return [file for file in await asyncio.gather(*map(copy, files)) if file]

    async def copy(self, file: File) -> bool:
        """Copy one file's content from another object, if one has it unchanged."""
        own = self.key(file)
        contents = self.context.store.bucket_contents
        known = contents.find(self.storage.name, file.sha256, file.size)
        if any(stored.key == own for stored in known):
            return False
        for stored in known:
            etag = await self.storage.copy(self.job.run, self.job.workflow, file, stored)
            if etag is not None:
                contents.add(self.storage.name, [(file.sha256, Stored(own, file.size, etag))])
                return True
            contents.forget(self.storage.name, [stored.key])
        return False

    async def sent(self, files: Sequence[File]) -> None:
        """Have the runner send these files, until S3 has all of them."""
        if not files:
            return
        await self.earlier()
        hashed = await ask(
            self.context.fleet.host(self.runner), sums(self.host_context, self.attempt, self.tree, files)
        )
        answered: frozenset[tuple[str, int | None]] = frozenset()
        signed, plan = time.monotonic(), await self.planned(files, hashed, answered)
        while plan.pieces:
            report = await self.round(plan.pieces)
            answered |= {plan.pieces[index].name for index in report.sent}
            expired = time.monotonic() - signed > self.storage.expires
            signed, before, plan = time.monotonic(), plan, await self.planned(files, hashed, answered)
            if weight(plan) >= weight(before) and not expired:
                raise StorageError(self.problem(report, plan.pieces))

    async def planned(
        self, files: Sequence[File], hashed: dict[str, Sums], answered: frozenset[tuple[str, int | None]]
    ) -> Uploading:
        """Plan what S3 lacks, and record what it has."""
        contents = self.context.store.bucket_contents
        known = {
            file.path: stored.etag
            for file in files
            for stored in contents.find(self.storage.name, file.sha256, file.size)
            if stored.key == self.key(file)
        }
        job = self.job
        plan = await self.storage.plan(job.run, job.workflow, files, hashed, sent=answered, known=known)
        arrived = [(file, plan.arrived[file.path]) for file in files if file.path in plan.arrived]
        new = [(file, etag) for file, etag in arrived if known.get(file.path) != etag]
        contents.add(self.storage.name, [(file.sha256, Stored(self.key(file), file.size, etag)) for file, etag in new])
        return plan

    async def earlier(self) -> None:
        """Wait for an upload that an earlier server started: the runner continues it."""
        while (await self.asked(None)).running:
            continue

    async def round(self, pieces: Sequence[Piece]) -> Upload:
        """Have the runner upload these pieces, and wait until it is done."""
        report = await self.asked(pieces)
        if report.other:
            raise StorageError("another upload of the same job is in progress on the runner")
        while report.running:
            self.tell(total([piece for index, piece in enumerate(pieces) if index not in report.sent]))
            report = await self.asked(None)
        return report

    async def asked(self, pieces: Sequence[Piece] | None) -> Upload:
        host_context, attempt = self.host_context, self.attempt
        command = (
            uploading(host_context, attempt) if pieces is None else upload(host_context, attempt, self.tree, pieces)
        )
        return await ask(self.context.fleet.host(self.runner), command)

    def problem(self, report: Upload, pieces: Sequence[Piece]) -> str:
        """Why nothing arrived."""
        codes = sorted({code for code in report.refused.values() if code})
        if codes:
            return f"S3 refuses the upload from {self.runner.name} with status {', '.join(map(str, codes))}"
        error = report.trouble or "no error message"
        return f"{self.runner.name} can't send {len(pieces)} pieces to S3: {error}"

    def key(self, file: File) -> str:
        """The S3 key of a file."""
        return self.storage.key(self.job.run, self.job.workflow, file.path)


def weight(plan: Uploading) -> int:
    """How much is left to send; the number of pieces is added, so that empty files count, too."""
    return total(plan.pieces) + len(plan.pieces)
