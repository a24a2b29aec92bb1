"""Gets a script past any login shell: one constant command, and the first line that its `sh` reads.

The user's login shell reads only LOGIN_COMMAND, because no quoting works in every shell. It becomes a POSIX sh, which
reads one line from stdin. That line reads the compressed script by its exact length (a shell that reads its script from
stdin reads ahead, and swallows what follows), has gzip check its sum, and runs it. The rest of stdin belongs to the
script.
"""

from __future__ import annotations

import gzip
import secrets

LOGIN_COMMAND = r"exec sh -c read\ -r\ x\;eval\ \$x"
"""Means the same to dash, bash, zsh, fish, tcsh and busybox: become the sh that runs START."""

START = "read -r x;eval $x"
"""The script of that sh, for use without a login shell."""

DAMAGED = 93
"""The exit status if the script arrived incomplete, or the host has no gzip or stty, or a dd of before 2012. The script
did not start."""

_FOLDERS = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/snap/bin"

# `eval $x` is unquoted, so this line has only single spaces and no characters that a shell expands to file names.
_BOOTSTRAP = (
    "LC_ALL=C; export LC_ALL; umask 077; PATH=${{PATH:+$PATH:}}{folders}; export PATH; "
    "x=$(dd bs={length} count=1 iflag=fullblock 2>/dev/null | gzip -dc) || exit {damaged}; "
    '{begin}; eval "$x"\n'
)
_BEGIN = "echo {marker}; echo {marker} >&2"
_BEGIN_IN_TERMINAL = "stty sane || exit {damaged}; stty iutf8 2>/dev/null; echo {marker}"


def new_marker() -> str:
    """Return a line that nothing else prints."""
    return f"dstack-{secrets.token_hex(16)}"


def wrap(script: str, marker: str, *, terminal: bool = False) -> bytes:
    """Return the first bytes of stdin for LOGIN_COMMAND or START: the bootstrap line and the script as gzip makes it,
    with its CRC-32 and its length at the end (RFC 1952).

    The bytes after them are the script's stdin. The script runs with LC_ALL=C, umask 077 and a PATH with the usual
    folders. Right before it starts, `marker` is printed as a line of its own on stdout and on stderr. With `terminal`,
    stdin must be a terminal that passes bytes unchanged; it becomes an ordinary one before `marker` is printed.
    """
    body = gzip.compress(script.encode("utf-8", "surrogateescape"), mtime=0)
    begin = (_BEGIN_IN_TERMINAL if terminal else _BEGIN).format(marker=marker, damaged=DAMAGED)
    line = _BOOTSTRAP.format(folders=_FOLDERS, length=len(body), damaged=DAMAGED, begin=begin)
    return line.encode() + body


BANNER = 2**20
"""Bytes that may come before the marker."""


class AfterMarker:
    """Drops a stream's output up to its marker line: banners, and the output of start-up files. `lost` is set if they
    are longer than `BANNER`: no marker is looked for any more."""

    _KEPT = 4096

    def __init__(self, marker: str, *, terminal: bool = False) -> None:
        self._line = f"{marker}\r\n".encode() if terminal else f"{marker}\n".encode()
        self._before = b""
        self._dropped = 0
        self.found = self.lost = False

    @property
    def noise(self) -> bytes:
        """The last 4 KiB before the marker. If the marker is missing, they say why the script did not start."""
        return self._before[-self._KEPT :]

    def feed(self, data: bytes) -> bytes:
        """Return the part of the next piece that comes after the marker."""
        if self.found:
            return data
        before, line, after = (self._before + data).partition(self._line)
        self.found = bool(line)
        self._dropped += len(data)
        self.lost = not self.found and self._dropped > BANNER
        self._before = before[-self._KEPT - len(self._line) :]
        return after
