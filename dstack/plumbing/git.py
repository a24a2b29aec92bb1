"""Runs git with a controlled environment and configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import get_ident
from typing import IO

from dstack.errors import DstackError, ErrorCode, UsageError

OLDEST = (2, 20)

# Set by users on purpose. Others, such as GIT_DIR and GIT_INDEX_FILE in a git hook, are meant for another command.
KEPT = {
    *("GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_EXEC_PATH"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM"),
}

_QUIET = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_REPLACE_OBJECTS": "1"}

# Files are shipped byte for byte. `!` instead of `-`: git rejects a working-tree-encoding that is unset.
RAW_ATTRIBUTES = "* -text -filter -ident -eol !working-tree-encoding\n"
FULL = ("No space left on device", "quota exceeded", "Out of diskspace")
"""What git says when a disk is full."""


class GitError(DstackError):
    """git failed. `status` is its exit status, `detail` its stderr, `full` says that a disk is full."""

    code = ErrorCode.GIT

    def __init__(self, arguments: Sequence[str], status: int, stderr: bytes) -> None:
        self.status = status
        self.detail = os.fsdecode(stderr).strip() or "it printed nothing"
        self.full = any(words in self.detail for words in FULL)
        super().__init__(f"git {arguments[0]} failed with exit status {status}: {self.detail}")


class Git:
    """git for one repository: the user's (`at`), or one of dstack's own (`within`)."""

    def __init__(self, environment: Mapping[str, str], folder: Path | None = None, *settings: str) -> None:
        self.environment = dict(environment)
        self.folder = folder
        self.options = [word for setting in settings for word in ("-c", setting)]

    @classmethod
    def at(cls, folder: Path, *settings: str) -> Git:
        """Return git for the repository that `folder` is in, with the user's configuration and these settings. It
        starts no hook, monitor or maintenance, and refuses another owner's repository as the user's git does."""
        hooks = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "core.alternateRefsCommand=:")
        plain = ("protocol.ext.allow=never", "core.quotePath=false", "gc.auto=0", "maintenance.auto=false")
        # An empty GIT_PROXY_COMMAND wins over core.gitProxy.
        environment = {**_environment(), "GIT_NO_LAZY_FETCH": "1", "GIT_PROXY_COMMAND": ""}
        return cls(environment, folder, *hooks, *plain, *settings)

    @classmethod
    def within(cls, repository: Path, **variables: str) -> Git:
        """Return git for a bare repository of dstack's: its own configuration only, no hooks, any file names."""
        settings = ("safe.directory=*", "core.protectNTFS=false", "core.protectHFS=false")
        own = {
            "GIT_DIR": str(repository),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "HOME": str(repository),
            "XDG_CONFIG_HOME": str(repository),
        }
        return cls({**_environment(), **own, **variables}, repository, *settings)

    def run(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] = b"",
        stdout: int | IO[bytes] = subprocess.PIPE,
        accept: Sequence[int] = (0,),
    ) -> bytes:
        """Run the command and return its stdout, unless that goes to an open file. `stdin` is its input, or an open
        file with it. Raises GitError unless its exit status is in `accept`."""
        data, source = (stdin, subprocess.PIPE) if isinstance(stdin, bytes) else (None, stdin)
        process = self.start(*arguments, stdin=source, stdout=stdout)
        output, errors = process.communicate(data)
        if process.returncode not in accept:
            raise GitError(arguments, process.returncode, errors)
        return output

    def succeeds(self, *arguments: str) -> bool:
        """Run the command and return whether it exits with 0."""
        process = self.start(*arguments)
        process.communicate()
        return process.returncode == 0

    def start(
        self, *arguments: str, stdin: int | IO[bytes] = subprocess.DEVNULL, stdout: int | IO[bytes] = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start the command, with its stderr on a pipe."""
        try:
            return subprocess.Popen(
                ["git", *self.options, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            if self.folder and not self.folder.exists():
                raise UsageError(f"the folder {self.folder} is gone") from error
            raise UsageError("git is not installed; dstack needs it to send your code", hint="install git") from error


def require_git() -> None:
    """Raise UsageError if git is missing or older than 2.20."""
    words = Git(_environment()).run("version").decode(errors="replace").split()
    number = words[2] if len(words) > 2 else ""
    parts = [int(part) for part in number.split(".")[:2] if part.isdigit()]
    if len(parts) == 2 and tuple(parts) < OLDEST:
        raise UsageError(f"git {number} is too old; dstack needs git 2.20 or newer", hint="upgrade git")


def make_bare(path: Path, object_format: str, alternates: Sequence[Path] = ()) -> bool:
    """Write a bare repository that runs no hooks and applies no attributes, or what is missing or wrong in one. Return
    whether anything was."""
    for name in ("objects/pack", "objects/info", "refs", "info"):
        (path / name).mkdir(parents=True, exist_ok=True)
    extension = f"[extensions]\n\tobjectFormat = {object_format}\n" if object_format != "sha1" else ""
    version = 1 if extension else 0
    core = f"\trepositoryFormatVersion = {version}\n\tbare = true\n\thooksPath = {os.devnull}\n\tcompression = 1\n"
    files = {
        "config": f"[core]\n{core}[gc]\n\tauto = 0\n[pack]\n\tcompression = 1\n{extension}",
        "info/attributes": RAW_ATTRIBUTES,
        **({"objects/info/alternates": "".join(f"{quoted(folder)}\n" for folder in alternates)} if alternates else {}),
        "HEAD": "ref: refs/heads/none\n",
    }
    written = [name for name, text in files.items() if write_file(path / name, text)]
    return bool(written)


def write_file(path: Path, text: str) -> bool:
    """Write a file beside it and rename it, unless it has this text: the path always has a whole file. Return whether
    it was written."""
    data = os.fsencode(text)
    if path.exists() and path.read_bytes() == data:
        return False
    unfinished = path.with_name(f"{path.name}.{get_ident()}.new")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return True


def quoted(folder: Path) -> str:
    """Quote a folder for git's lists of object folders."""
    text = str(folder)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in KEPT}
    return {**kept, **_QUIET}
