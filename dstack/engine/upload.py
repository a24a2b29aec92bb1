"""Has a host upload what a job made, straight to object storage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from dstack.artifacts.s3 import S3Store
from dstack.artifacts.uploads import Uploading
from dstack.commands.collect import made
from dstack.commands.upload import Upload, sums, upload, uploading
from dstack.engine.context import Context
from dstack.errors import StorageError
from dstack.hosts.host import ask
from dstack.model.job import Job
from dstack.model.manifest import File
from dstack.model.paths import attempt_id
from dstack.model.runner import Runner
from dstack.model.upload import Piece, Stored, Sums, total

ANSWER = 120.0
"""Seconds that a question may take longer than the host was told to wait."""
COPIES = 16
"""Copies inside the store at one time."""


class Uploader:
    """Brings a job's files into the store: repeatable, and what has arrived is never sent again.

    What is known of an upload is on the host and in S3: the host goes on by itself, and whoever comes next asks both.
    `tree` is where the files lie, below the job's folder: None for those of a job that ended. `tell` is called with
    how many bytes are left.
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
        self.place = context.machines.place(runner)
        self.attempt = attempt_id(job.id, job.attempt)
        self.tree = made(context.store.runs.require(job.run).snapshot.project) if tree is None else tree

    async def run(self, files: Sequence[File]) -> None:
        """Have all these files in the store. Raises StorageError or HostError: then it may be tried again."""
        regular = [file for file in files if file.link is None]
        each = {(file.sha256, file.size): file for file in reversed(regular)}
        missing = await self.copied(list(each.values()))
        await self.sent(missing)
        first = {file.path for file in each.values()}
        left = await self.copied([file for file in regular if file.path not in first])
        await self.sent(left)

    async def copied(self, files: Sequence[File]) -> list[File]:
        """Copy inside the store what it has already; the files that it has not, or has at their own place."""
        gate = asyncio.Semaphore(COPIES)

        async def copy(file: File) -> File | None:
            async with gate:
                return None if await self.copy(file) else file

        return [file for file in await asyncio.gather(*map(copy, files)) if file]

    async def copy(self, file: File) -> bool:
        """Copy one file's content from another object, if there is one that is still what it was."""
        own = self.key(file)
        contents = self.context.store.contents
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
        """Have the host send these, until S3 has them all."""
        if not files:
            return
        await self.earlier()
        hashed = await ask(self.context.machines.host(self.runner), sums(self.place, self.attempt, self.tree, files))
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
        """What S3 lacks. What it has is remembered."""
        contents = self.context.store.contents
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
        """Wait for an upload that an earlier server began: it goes on with what it has."""
        while (await self.asked(None)).running:
            continue

    async def round(self, pieces: Sequence[Piece]) -> Upload:
        """Let the host upload these, and wait for its end."""
        report = await self.asked(pieces)
        if report.other:
            raise StorageError("another upload of the same job is under way on the host")
        while report.running:
            self.tell(total([piece for index, piece in enumerate(pieces) if index not in report.sent]))
            report = await self.asked(None)
        return report

    async def asked(self, pieces: Sequence[Piece] | None) -> Upload:
        place, attempt = self.place, self.attempt
        command = uploading(place, attempt) if pieces is None else upload(place, attempt, self.tree, pieces)
        return await ask(self.context.machines.host(self.runner), command)

    def problem(self, report: Upload, pieces: Sequence[Piece]) -> str:
        """Why nothing arrived."""
        codes = sorted({code for code in report.refused.values() if code})
        if codes:
            return f"S3 refuses what {self.runner.name} sends, with status {', '.join(map(str, codes))}"
        said = report.trouble or "it does not say why"
        return f"{self.runner.name} can't send {len(pieces)} pieces to S3: {said}"

    def key(self, file: File) -> str:
        """The object of a file."""
        return self.storage.key(self.job.run, self.job.workflow, file.path)


def weight(plan: Uploading) -> int:
    """How much is to be sent: files of nothing count too."""
    return total(plan.pieces) + len(plan.pieces)
