"""What gets a script past a login shell: one constant command, and the first line that its `sh` reads.

Nothing but LOGIN_COMMAND is ever read by the user's login shell, which may be one that no quoting fits. It becomes a
POSIX sh, which takes one line from stdin. That line reads the script by its exact length (a shell that reads its
script from stdin reads ahead, and swallows what follows), checks its sum, and runs it. The rest of stdin is the
script's own.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

LOGIN_COMMAND = r"exec sh -c read\ -r\ x\;eval\ \$x"
"""Means the same to dash, bash, zsh, fish, tcsh and busybox: become the sh that runs START."""

START = "read -r x;eval $x"
"""The script of that sh, for a machine that is reached without a login shell."""

DAMAGED = 93
"""The exit status of a script that did not arrive whole, or whose host has no sha256sum. It did not begin."""

_FOLDERS = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/snap/bin"

# `eval $x` is not quoted: this is single-spaced, and has no character that a shell would expand to file names.
_BOOTSTRAP = (
    "LC_ALL=C; export LC_ALL; umask 077; PATH=${{PATH:+$PATH:}}{folders}; export PATH; "
    "x=$(dd ibs=1 obs=65536 count={length} 2>/dev/null); "
    'set -- $(printf %s "$x" | sha256sum); test x$1 = x{digest} || exit {damaged}; set --; '
    'echo {marker}; echo {marker} >&2; eval "$x"\n'
)


def new_marker() -> str:
    """A line that nothing else prints."""
    return f"dstack-{secrets.token_hex(16)}"


def wrap(script: str, marker: str) -> bytes:
    """The first bytes of stdin for LOGIN_COMMAND or START: the bootstrap line and the script.

    What follows them is the script's stdin. The script runs with LC_ALL=C, umask 077 and a PATH that holds the usual
    folders. Right before it begins, `marker` stands as a line of its own on stdout and on stderr.
    """
    body = script.rstrip("\n").encode("utf-8", "surrogateescape")
    line = _BOOTSTRAP.format(
        folders=_FOLDERS, length=len(body), digest=sha256(body).hexdigest(), damaged=DAMAGED, marker=marker
    )
    return line.encode() + body


class AfterMarker:
    """Drops what a stream says up to its marker line: banners, and what a start-up file prints."""

    _KEPT = 4096

    def __init__(self, marker: str) -> None:
        self._line = f"{marker}\n".encode()
        self._before = b""
        self.found = False

    @property
    def noise(self) -> bytes:
        """The end of what came before the marker, at most 4 KiB: without a marker, why the script did not begin."""
        return self._before[-self._KEPT :]

    def feed(self, data: bytes) -> bytes:
        """What of the next piece comes after the marker."""
        if self.found:
            return data
        before, line, after = (self._before + data).partition(self._line)
        self.found = bool(line)
        self._before = before[-self._KEPT - len(self._line) :]
        return after
