"""Who the server is, to its machines: an id, an epoch, and one instance for each of its starts."""

from __future__ import annotations

import os
import time
from functools import cached_property
from pathlib import Path
from secrets import token_hex

from dstack.store.database import Database, Table
from dstack.store.tables.settings import SERVER_ID, Settings

EPOCH = "epoch"
HOME = "home"
"""The setting that says where the server lives: the number of its folder, its machine and its home."""
MOST = 1000
"""How many instances a machine is told: those that may have been its owner."""


class Identity(Table):
    """The id and the epoch are also in the file `path`, which outlives the database: a new database takes the id over,
    in the next epoch. Whoever restores an older state raises the epoch, and so wins over the server that had it since.
    """

    def __init__(self, database: Database, settings: Settings, path: Path) -> None:
        super().__init__(database)
        self.settings = settings
        self.path = path
        known, epoch = read(path)
        own = settings.get(SERVER_ID)
        if not own:
            settings.set(SERVER_ID, known or token_hex(4))
            settings.set(EPOCH, str(epoch + 1))
        elif known == own and epoch > self.epoch:
            settings.set(EPOCH, str(epoch))
        self.write()
        if not self.copied:
            self.settle_here()

    @property
    def id(self) -> str:
        return self.settings.server_id

    @property
    def epoch(self) -> int:
        return int(self.settings.get(EPOCH) or 1)

    @cached_property
    def instance(self) -> str:
        """This start of the server."""
        made = token_hex(8)
        self.database.execute("INSERT INTO instances (id) VALUES (?)", (made,))
        return made

    @property
    def home(self) -> str:
        """The machine and the home."""
        return f"{os.uname().nodename}:{self.path.parent.parent}"

    @property
    def copied(self) -> str | None:
        """The home that this one is a copy of, if it is one. A home that was moved, or put back where it was, is none.

        A folder keeps its number (inode) when it is renamed, and in a volume that another container mounts."""
        number, _, original = (self.settings.get(HOME) or "").partition(" ")
        if not original or number == self.folder:
            return None
        machine, _, home = original.partition(":")
        here = machine == os.uname().nodename
        gone = here and (original == self.home or not (Path(home) / self.path.parent.name / self.path.name).exists())
        return None if gone else original

    @property
    def folder(self) -> str:
        """The number of the folder with the state."""
        return str(self.path.parent.stat().st_ino)

    def settle_here(self) -> None:
        """Record that this home is the server's, not a copy. A server that finds its state locked starts, too."""
        here = f"{self.folder} {self.home}"
        if self.settings.get(HOME) != here:
            self.settings.set(HOME, here)

    @property
    def instances(self) -> list[str]:
        """The newest instances, in which those of a copy are not from its first start on."""
        return self.database.column("SELECT id FROM instances ORDER BY number DESC LIMIT ?", MOST)

    @property
    def owner(self) -> str:
        """The line that shows machines whose folder it is."""
        return f"{self.instance} {self.epoch} {self.home}"

    def take_over(self) -> None:
        """Raise the epoch: this server owns its machines, whatever they say. The time is higher than the epoch of a
        copy that was told the same before."""
        self.settings.set(EPOCH, str(max(self.epoch + 1, int(time.time()))))
        self.settle_here()
        self.write()

    def renew(self) -> None:
        """Become another server, whose folders on the machines are other ones."""
        with self.database.transaction():
            self.settings.set(SERVER_ID, token_hex(4))
            self.settings.set(EPOCH, "1")
            self.settle_here()
        self.write()

    def write(self) -> None:
        """Write the file, unless it says so already."""
        if read(self.path) != (self.id, self.epoch):
            put(self.path, self.id, self.epoch)


def read(path: Path) -> tuple[str | None, int]:
    """Return the id and the epoch that the file says; None and 0 if there is no such file."""
    words = path.read_text().split() if path.exists() else []
    return (words[0], int(words[1])) if len(words) == 2 and words[1].isdigit() else (None, 0)


def put(path: Path, server: str, epoch: int) -> None:
    """Write the file, as a whole and to the disk."""
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        file.write(f"{server} {epoch}\n")
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
