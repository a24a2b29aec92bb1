"""Gets a script past any login shell: one constant command, and the first line that its `sh` reads.

The user's login shell reads only LOGIN_COMMAND, because no quoting works in every shell. It becomes a POSIX sh, which
reads one line from stdin. That line reads the script by its exact length (a shell that reads its script from stdin
reads ahead, and swallows what follows), checks its sum, and runs it. The rest of stdin belongs to the script.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

LOGIN_COMMAND = r"exec sh -c read\ -r\ x\;eval\ \$x"
"""Means the same to dash, bash, zsh, fish, tcsh and busybox: become the sh that runs START."""

START = "read -r x;eval $x"
"""The script of that sh, for use without a login shell."""

DAMAGED = 93
"""The exit status if the script arrived incomplete, or the host has no sha256sum. The script did not start."""

_FOLDERS = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/snap/bin"

# `eval $x` is unquoted, so this line has only single spaces and no characters that a shell expands to file names.
_BOOTSTRAP = (
    "LC_ALL=C; export LC_ALL; umask 077; PATH=${{PATH:+$PATH:}}{folders}; export PATH; "
    "x=$(dd ibs=1 obs=65536 count={length} 2>/dev/null); "
    'set -- $(printf %s "$x" | sha256sum); test x$1 = x{digest} || exit {damaged}; set --; '
    'echo {marker}; echo {marker} >&2; eval "$x"\n'
)


def new_marker() -> str:
    """Return a line that nothing else prints."""
    return f"dstack-{secrets.token_hex(16)}"


def wrap(script: str, marker: str) -> bytes:
    """Return the first bytes of stdin for LOGIN_COMMAND or START: the bootstrap line and the script.

    The bytes after them are the script's stdin. The script runs with LC_ALL=C, umask 077 and a PATH with the usual
    folders. Right before it starts, `marker` is printed as a line of its own on stdout and on stderr.
    """
    body = script.rstrip("\n").encode("utf-8", "surrogateescape")
    line = _BOOTSTRAP.format(
        folders=_FOLDERS, length=len(body), digest=sha256(body).hexdigest(), damaged=DAMAGED, marker=marker
    )
    return line.encode() + body


class AfterMarker:
    """Drops a stream's output up to its marker line: banners, and the output of start-up files."""

    _KEPT = 4096

    def __init__(self, marker: str) -> None:
        self._line = f"{marker}\n".encode()
        self._before = b""
        self.found = False

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
        self._before = before[-self._KEPT - len(self._line) :]
        return after
