"""Reads the server's log across the files into which it is rotated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from dstack.model.paths import ServerLayout


class ServerLog:
    """The log as one. Raises FileNotFoundError if there is none."""

    def __init__(self, layout: ServerLayout) -> None:
        self.layout = layout
        self.current: BinaryIO = layout.server_log.open("rb")

    def __enter__(self) -> ServerLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.current.close()

    def lines(self) -> Iterator[bytes]:
        """Yield all lines, the oldest first."""
        for path in self.layout.server_logs[:-1]:
            if path.exists() and not self._is_current(os.stat(path)):
                with path.open("rb") as file:
                    yield from file
        yield from self.current

    def added(self) -> bytes:
        """Return what was added since the last call or `lines`, or b"" if nothing was."""
        block, path = self.current.read(), self.layout.server_log
        if not block and path.exists() and not self._is_current(path.stat()):
            self.current.close()
            self.current = path.open("rb")
            block = self.current.read()
        return block

    def _is_current(self, status: os.stat_result) -> bool:
        return os.path.samestat(status, os.fstat(self.current.fileno()))
