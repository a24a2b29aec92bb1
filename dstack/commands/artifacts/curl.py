"""curl's configuration, which keeps URLs out of process lists: https://curl.se/docs/manpage.html#-K"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping

ALWAYS = (
    "globoff",
    "silent",
    "show-error",
    "fail-early",
    'proto = "=http,https"',
    "connect-timeout = 20",
    "speed-limit = 1",
    "speed-time = 60",
)
"""A connection that is silent for a minute counts as broken. The first broken transfer ends the command: otherwise a
failing network would cost a minute per file."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\v": "\\v"})


def transfer(options: Iterable[tuple[str, str]], *, first: bool = False) -> bytes:
    """Return the lines of one transfer, which begin with `next` unless it is the `first` one of a command."""
    given = [f'{name} = "{value.translate(_ESCAPES)}"' for name, value in options]
    lines = [*([] if first else ["next"]), *ALWAYS, *given]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of small files, for a script that unpacks it."""
    blocks = []
    for path, data in files.items():
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(data), 0o600
        blocks += [entry.tobuf(tarfile.GNU_FORMAT), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
    return b"".join([*blocks, bytes(2 * tarfile.BLOCKSIZE)])
