"""The contents in the folder store, found by sha256, and how they arrive."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

from dstack.artifacts.files import read
from dstack.errors import StorageError
from dstack.model.job.manifest import File, Folder, shown

CANNOT_LINK = {errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
SHA256 = re.compile("[0-9a-f]{64}")


class Contents:
    """`<folder>/<ab>/<cd>/<sha256>-<mtime in ns>`: hard links to the files of the jobs' trees. A content is trusted
    while it has its size and the mtime in its name. Otherwise it is hashed again, and dropped if damaged. Files with
    the same bytes but different modes are separate contents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, file: File) -> bool:
        """Return whether the content is there and intact."""
        return next(self._intact(file), None) is not None

    def add(self, aside: Path, file: File) -> None:
        """Add a verified file by moving it into the store."""
        aside.chmod(disk_mode(file))
        name = self._name(file.sha256, aside.stat().st_mtime_ns)
        try:
            aside.rename(name)
        except FileNotFoundError:
            name.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(name)

    def place(self, file: File, target: Path) -> None:
        """Create `target` as a hard link to the content, or else as a copy. Raises StorageError if it is missing."""
        intact = list(self._intact(file))
        if not intact:
            raise StorageError(f"the content of {shown(file.path)} is not in the store")
        mode = disk_mode(file)
        for content in intact:
            if stat.S_IMODE(content.stat().st_mode) == mode and linked(content, target):
                return
        shutil.copyfile(intact[0], target)
        if digest(target) != file.sha256:
            os.utime(intact[0])  # a new mtime: it is hashed before it is trusted again
            raise StorageError(f"the stored content of {shown(file.path)} is damaged")
        target.chmod(mode)
        if not linked(target, self._name(file.sha256, target.stat().st_mtime_ns)):
            shutil.copystat(intact[0], target)
            target.chmod(mode)

    def damage(self, file: File, stored: Path) -> str | None:
        """Return what is wrong with a job's stored file, or None."""
        try:
            status = stored.lstat()
            if not stat.S_ISREG(status.st_mode):
                return f"{shown(file.path)} is no longer a regular file"
            if status.st_size != file.size:
                return f"{shown(file.path)} has {status.st_size} bytes instead of {file.size}"
            if not self._name(file.sha256, status.st_mtime_ns).exists() and digest(stored) != file.sha256:
                return f"{shown(file.path)} no longer matches its checksum"
            return None
        except (FileNotFoundError, NotADirectoryError):
            return f"{shown(file.path)} is gone"
        except OSError as error:
            return f"{shown(file.path)} can't be read: {error.strerror}"

    def forget(self, files: Iterable[File]) -> None:
        """Remove those of these contents that are no longer in any job's tree."""
        for file in files:
            for content in self._all(file):
                with contextlib.suppress(FileNotFoundError):
                    if content.stat().st_nlink == 1:
                        content.unlink()

    def unused(self, before: float, *, remove: bool) -> int:
        """Return the bytes of the contents that are in no job's tree and unchanged since `before` (seconds since the
        epoch); younger ones may be about to be used. With `remove`, remove them."""
        total = 0
        for content in self.folder.glob("??/??/*"):
            with contextlib.suppress(FileNotFoundError):  # another thread dropped or renamed it
                status = content.lstat()
                if status.st_nlink == 1 and status.st_ctime < before:
                    total += status.st_size
                    if remove:
                        content.unlink()
        return total

    def _intact(self, file: File) -> Iterator[Path]:
        for content in self._all(file):
            with contextlib.suppress(FileNotFoundError):  # another thread dropped or renamed it
                if trusted := self._trusted(content, file):
                    yield trusted

    def _trusted(self, content: Path, file: File) -> Path | None:
        """Return the content under the name that it should have. If it is damaged, drop it and return None."""
        status = content.lstat()
        name = self._name(file.sha256, status.st_mtime_ns)
        if stat.S_ISREG(status.st_mode) and status.st_size == file.size:
            if content == name:
                return content
            if digest(content) == file.sha256:
                return content.rename(name)
        content.unlink()
        return None

    def _all(self, file: File) -> list[Path]:
        return list(self._name(file.sha256, 0).parent.glob(f"{file.sha256}-*"))

    def _name(self, sha256: str, mtime: int) -> Path:
        if not SHA256.fullmatch(sha256):
            raise StorageError(f"{shown(sha256)} is not a sha256")
        return self.folder / sha256[:2] / sha256[2:4] / f"{sha256}-{mtime}"


def incoming(folder: Path, contents: Contents, files: Sequence[File]) -> Generator[None, bytes, None]:
    """Write each file to `folder`, which nothing else uses, verify it, and add it to the contents. Start it with
    `next`, send it the bytes in pieces of any size, and b"" at their end. Raises StorageError for bytes that do not
    match the listing, and for too few or too many."""
    aside = folder / "incoming"
    data = memoryview(b"")
    for file in files:
        sha256, left = hashlib.sha256(), file.size
        with aside.open("xb") as written:
            while left:
                data = data or memoryview((yield))
                if not data:
                    got = file.size - left
                    raise StorageError(f"{shown(file.path)} arrived incomplete: {got} of {file.size} bytes")
                piece, data = data[:left], data[left:]
                written.write(piece)
                sha256.update(piece)
                left -= len(piece)
        if sha256.hexdigest() != file.sha256:
            raise StorageError(
                f"{shown(file.path)} does not match its checksum: it changed while it was collected, or was damaged "
                "on the way"
            )
        contents.add(aside, file)
    if data or (yield):
        raise StorageError("the runner sent more bytes than the requested files have")


def disk_mode(file: File) -> int:
    """Return the mode of a stored file: its own, plus readable by the store."""
    return (file.mode & 0o777) | 0o400


def folder_mode(folder: Folder) -> int:
    """Return the mode of a stored folder: its own, plus open to the store."""
    return (folder.mode & 0o777) | 0o700


def linked(source: Path, target: Path) -> bool:
    """Make `target` a hard link to the file. Return False if the file system or its limits forbid it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in CANNOT_LINK:
            return False
        raise
    return True


def digest(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    sha256 = hashlib.sha256()
    for block in read(path, 0):
        sha256.update(block)
    return sha256.hexdigest()
