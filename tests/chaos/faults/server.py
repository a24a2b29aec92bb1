"""What goes wrong on the server's machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from dstack.model.job.reasons import ReasonCode
from tests.chaos.faults.fault import STORAGE, UNREACHABLE, Fault, fill, use_inodes
from tests.environment.product import Home
from tests.environment.waiting import until

LOCK = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class ServerKilled(Fault):
    """kill -9 of the server."""

    def begin(self) -> None:
        self.site.kill()

    def end(self) -> None:
        self.site.serve()


class ServerStopped(Fault):
    """The server's process is stopped for a while, as on a laptop that sleeps."""

    explains = UNREACHABLE

    def begin(self) -> None:
        self.stopped = self.site.running
        self.signal(signal.SIGSTOP)

    def end(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        for process in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(process, number)


class PowerCut(Fault):
    """The server's machine loses power: what was not synced is gone."""

    def begin(self) -> None:
        self.site.cut_power()

    def end(self) -> None:
        self.site.serve()


class DatabaseLocked(Fault):
    """Another process holds the lock of the server's database, until it ends or the power is cut."""

    explains = frozenset({ReasonCode.SERVER_TROUBLE})

    def begin(self) -> None:
        words = [sys.executable, "-c", LOCK, str(self.site.database)]
        self.holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.site.others.add(self.holder.pid)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()

    def end(self) -> None:
        self.holder.communicate()
        self.site.others.discard(self.holder.pid)


class DatabasePutBack(Fault):
    """A copy of the database is put back under a stopped server: what has happened meanwhile is not in it."""

    explains = UNREACHABLE | {ReasonCode.RESTORED, ReasonCode.LOST_REMOVED}
    breaks = "database"
    forgets = True

    def begin(self) -> None:
        self.copy = self.site.home.path / "copy.db"
        copy_database(self.site.database, self.copy)

    def end(self) -> None:
        with self.site.no_start():
            self.site.kill()
            for left in self.site.database.parent.glob("state.db*"):
                left.unlink()
            until(self.placed, "the copy of the database fits on the disk", 60)
        self.site.serve()

    def placed(self) -> bool:
        """Put the copy in place, unless another fault fills the disk now."""
        with suppress(OSError):
            shutil.copy(self.copy, self.site.database)
            return True
        return False


class HomeCopied(Fault):
    """A second server runs on a copy of the home for a while, and has to leave the machines alone."""

    breaks = "database"

    def begin(self) -> None:
        self.other, home = Home(), self.site.home
        self.other.environment |= home.environment | {"DSTACK_HOME": str(self.other.dstack)}
        unfinished = shutil.ignore_patterns("socket", "state.db*", "*.lock", "*.new", "incoming")
        with suppress(shutil.Error):  # what is renamed meanwhile
            shutil.copytree(home.dstack, self.other.dstack, ignore=unfinished)
        copy_database(self.site.database, self.other.dstack / "server" / "state.db")
        self.other.serve_again()

    def end(self) -> None:
        shown = json.loads(self.other.run("runners", "--json").stdout)
        assert not [runner["name"] for runner in shown if runner["state"] == "ready"], shown
        self.other.close()


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that is in use, as of one moment."""
    with closing(sqlite3.connect(source, timeout=60)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


class ServerDiskFull(Fault):
    """The disk of the server's home has no space left."""

    explains = STORAGE | {ReasonCode.SERVER_DISK_FULL, ReasonCode.SERVER_TROUBLE}
    breaks = "the server's disk"

    def begin(self) -> None:
        self.ballast = self.site.disk.path / str(self)
        fill(self.ballast)

    def end(self) -> None:
        self.ballast.unlink(missing_ok=True)


class ServerInodesFull(ServerDiskFull):
    """The disk of the server's home can hold no further file."""

    def begin(self) -> None:
        self.ballast = self.site.disk.path / str(self)
        self.ballast.mkdir(exist_ok=True)
        use_inodes(self.ballast)

    def end(self) -> None:
        shutil.rmtree(self.ballast, ignore_errors=True)  # a power cut takes it, too


class ClockJumps(Fault):
    """The server's clock is wrong by two hours for a while; sometimes the server is killed then, too."""

    moves_clock = True

    def begin(self) -> None:
        self.site.clock.write_text(str(self.random.choice([7200, -7200])))
        if self.random.random() < 0.5:
            self.site.kill()
            self.site.serve()

    def end(self) -> None:
        self.site.clock.unlink()
