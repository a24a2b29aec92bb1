"""Images are fetched once for a runner at a time, however many jobs wait for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dstack.commands.place import Place
from dstack.commands.pull import Progress, pull
from dstack.errors import CommandError
from dstack.hosts.host import Host
from dstack.model.registry import Login

TOLD = 1.0
"""Seconds between two reports of how far a pull is."""

Tell = Callable[[str], None]
Key = tuple[str, str, "Login | None"]


class Going:
    """A pull under way, and whom to tell how far it is."""

    def __init__(self, host: Host, place: Place, image: str, login: Login | None) -> None:
        self.tells: list[Tell] = []
        self.progress = Progress()
        self.task = asyncio.create_task(self.run(host, place, image, login))
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may be left to ask

    async def run(self, host: Host, place: Place, image: str, login: Login | None) -> None:
        """Fetch the image. Raises CommandError with the registry's words."""
        told = 0.0
        command = pull(place, image, login)
        try:
            async for data in host.stream(command):
                self.progress.feed(data)
                if time.monotonic() - told >= TOLD:
                    told = time.monotonic()
                    self.tell()
        except CommandError as refused:
            self.progress.end()
            words = self.progress.trouble or refused.stderr
            raise CommandError(command.name, refused.exit_status, words) from refused

    def tell(self) -> None:
        """Say how far it is to all who wait for it."""
        for tell in self.tells:
            tell(self.progress.words)


class Pulls:
    """The pulls that somebody waits for: one that nobody waits for any more is ended."""

    def __init__(self) -> None:
        self.going: dict[Key, Going] = {}

    async def fetch(self, runner: str, host: Host, place: Place, image: str, login: Login | None, tell: Tell) -> None:
        """Have the image on the runner. Raises CommandError with the registry's words. `tell` gets words on how far
        it is, at first and then each second that brought news."""
        key = (runner, image, login)
        going = self.going.get(key)
        if going is None or going.task.done():
            going = self.going[key] = Going(host, place, image, login)
        going.tells.append(tell)
        tell(going.progress.words)
        try:
            await asyncio.shield(going.task)
        finally:
            going.tells.remove(tell)
            if not going.tells:
                going.task.cancel()
                if self.going.get(key) is going:
                    del self.going[key]
