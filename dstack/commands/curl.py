"""curl's configuration, which holds what no process list may show: https://curl.se/docs/manpage.html#-K"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping

ALWAYS = (
    "next",
    "globoff",
    "silent",
    "show-error",
    "fail-early",
    'proto = "=http,https"',
    "connect-timeout = 20",
    "speed-limit = 1",
    "speed-time = 60",
)
"""A connection that is silent for a minute is broken. The first transfer that breaks ends the command: what a network
that fails would take minutes for, file by file."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\v": "\\v"})


def transfer(options: Iterable[tuple[str, str]]) -> bytes:
    """The lines of one transfer. The first is `next`, which the first transfer of all goes without."""
    lines = [*ALWAYS, *(f"{name} = {quoted(value)}" for name, value in options)]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def quoted(value: str) -> str:
    """The value in the quotes of a configuration file."""
    return f'"{value.translate(_ESCAPES)}"'


def archive(files: Mapping[str, bytes]) -> bytes:
    """A tar of small files, for a script that unpacks them."""
    blocks = []
    for path, data in files.items():
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(data), 0o600
        blocks += [entry.tobuf(tarfile.GNU_FORMAT), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
    return b"".join([*blocks, bytes(2 * tarfile.BLOCKSIZE)])
