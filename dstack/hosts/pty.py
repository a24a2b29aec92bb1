"""A pseudo-terminal of this machine."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
import tty

from dstack.commands.host import TerminalSize

OPEN = 'exec <>"$0";'
"""What a sh runs first whose $0 is the terminal's path: opening a terminal makes it the one of the sh's session."""


class Pty:
    """It passes bytes unchanged until a program changes its modes, for example with `stty sane`.

    Entered as a context, it lends the body `user`, the end that a program gets as its stdin and output. `path` is its
    name. `reader` and `writer` are those of our end, after `connect`.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, size: TerminalSize) -> None:
        self._ours, self.user = os.openpty()
        self._reading: asyncio.ReadTransport | None = None
        self._writing: asyncio.WriteTransport | None = None
        self.path = os.ttyname(self.user)
        tty.setraw(self.user)
        self.resize(size.columns, size.rows)

    def __enter__(self) -> Pty:
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        os.close(self.user)
        if kind is not None:
            self.close()

    async def connect(self, limit: int) -> None:
        """Create `reader`, which buffers about `limit` bytes, and `writer`."""
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(limit)
        self._reading, _ = await loop.connect_read_pipe(
            lambda: _Reading(self.reader), os.fdopen(os.dup(self._ours), "rb", 0)
        )
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        self._writing, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(os.dup(self._ours), "wb", 0))
        self.writer = asyncio.StreamWriter(self._writing, protocol, None, loop)

    def resize(self, columns: int, rows: int) -> None:
        """Set the size; the kernel tells the program. Does nothing after `close`."""
        if self._ours >= 0:
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Hang up. May be called again."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
        if self._reading is not None and not self._reading.is_closing():
            self._reading.close()
        if self._writing is not None and not self._writing.is_closing():
            self._writing.abort()


class _Reading(asyncio.StreamReaderProtocol):
    """Linux reports as an I/O error that no program has the terminal open."""

    def connection_lost(self, exc: Exception | None) -> None:
        ended = isinstance(exc, OSError) and exc.errno == errno.EIO
        super().connection_lost(None if ended else exc)
