"""Pulls each image once per runner at a time, however many jobs wait for it."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from dstack.commands.host import Host
from dstack.commands.machine.pull import Login, PullProgress, pull
from dstack.errors import CommandError
from dstack.executors.executor import Tell
from dstack.model.job.status import Progress
from dstack.model.runner.host_context import HostContext

REPORT_EVERY = 1.0
"""Seconds between two progress reports of a pull."""


class Going:
    """A pull in progress, and the callbacks that get its progress."""

    def __init__(self, host: Host, host_context: HostContext, image: str, login: Login | None) -> None:
        self.tells: list[Tell] = []
        self.progress = PullProgress()
        self.task = asyncio.create_task(self.run(host, host_context, image, login))
        # if nobody waits any longer, asyncio must not warn about an exception that was never retrieved
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def run(self, host: Host, host_context: HostContext, image: str, login: Login | None) -> None:
        """Pull the image. Raises CommandError with the registry's message."""
        reported = 0.0
        command = pull(host_context, image, login)
        try:
            async with aclosing(host.stream(command)) as stream:
                async for data in stream:
                    self.progress.feed(data)
                    if time.monotonic() - reported >= REPORT_EVERY:
                        reported = time.monotonic()
                        for tell in self.tells:
                            tell(*self.said)
        except CommandError as refused:
            self.progress.end()
            words = self.progress.trouble or refused.stderr
            raise CommandError(command.name, refused.exit_status, words) from refused

    @property
    def said(self) -> tuple[str, Progress | None]:
        """How far it is, in words and in numbers."""
        return self.progress.words, self.progress.progress


class ImagePulls:
    """The pulls that a job waits for; a pull is cancelled once nobody waits for it."""

    def __init__(self) -> None:
        self.going: dict[tuple[str, str, Login | None], Going] = {}

    async def fetch(
        self, runner: str, host: Host, host_context: HostContext, image: str, login: Login | None, tell: Tell
    ) -> None:
        """Pull the image to the runner. Raises CommandError with the registry's message. `tell` gets the progress,
        first at once and then at most once a second."""
        key = (runner, image, login)
        going = self.going.get(key)
        if going is None or going.task.done():
            going = self.going[key] = Going(host, host_context, image, login)
        going.tells.append(tell)
        tell(*going.said)
        try:
            await asyncio.shield(going.task)
        finally:
            going.tells.remove(tell)
            if not going.tells:
                going.task.cancel()
                if self.going.get(key) is going:
                    del self.going[key]
