"""Lists the files of a working tree, and which of them git's index already has byte for byte."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from dstack.errors import UsageError
from dstack.plumbing.git import Git, GitError
from dstack.plumbing.trees import GITLINK, LINK
from dstack.snapshot.blobs import Blobs
from dstack.snapshot.folders import find_folders
from dstack.snapshot.worktree import Worktree, locate

# An index entry as `git ls-files --stage --debug -z` prints it.
_ENTRY = re.compile(
    rb"(?P<mode>\d{6}) (?P<id>[0-9a-f]{40,64}) (?P<stage>[0-3])\t(?P<path>[^\0]+)\0"
    rb"  ctime: (\d+):(\d+)\n  mtime: (\d+):(\d+)\n  dev: \d+\tino: (\d+)\n"
    rb"  uid: (\d+)\tgid: (\d+)\n  size: (\d+)\tflags: (?P<flags>[0-9a-f]+)\n"
)
_UNREADABLE = re.compile(r"could not open directory '(.*)': (.*)")


class Indexed(NamedTuple):
    """An index entry. `stage` is 0 unless the path is unmerged. `stamp` is the file's status when git last found it to
    match the blob. `assumed` is marked assume-unchanged; `skipped` is marked skip-worktree, as files outside a sparse
    checkout are; `intended` was added with `git add -N`."""

    path: bytes
    mode: str
    id: str
    stage: int
    stamp: tuple[int, ...]
    assumed: bool
    skipped: bool
    intended: bool


@dataclass(frozen=True)
class Inside:
    """A repository whose files are listed: the main one (`path` is b""), or one nested at `path`. `filtered` are the
    paths whose content goes through a filter program or another encoding, which a job may not have."""

    path: bytes
    worktree: Worktree
    index: list[Indexed]
    filtered: set[bytes]


@dataclass(frozen=True)
class ListedFile:
    """A file on disk. `id` is its blob, if known without reading it. `indexed` is the blob in git's index, which may
    differ from the bytes on disk by a filter or, unless the file is `clean`, an edit."""

    stat: os.stat_result
    id: str | None = None
    indexed: str | None = None
    clean: bool = False

    @property
    def mode(self) -> str:
        """The mode as git writes it, from the file system alone."""
        if stat.S_ISLNK(self.stat.st_mode):
            return LINK
        return "100755" if self.stat.st_mode & stat.S_IXUSR else "100644"


@dataclass
class Listing:
    """A working tree. Paths are relative to its root, which is b"". `submodules` maps those that are not checked out to
    their commits, `folders` maps folders to permission bits, `nested` are the folders of nested repositories. `objects`
    are the repositories' object folders, `repositories` their indexes."""

    files: dict[bytes, ListedFile] = field(default_factory=dict)
    submodules: dict[bytes, str] = field(default_factory=dict)
    folders: dict[bytes, int] = field(default_factory=dict)
    nested: list[bytes] = field(default_factory=list)
    objects: list[Path] = field(default_factory=list)
    repositories: list[Inside] = field(default_factory=list)


def list_tree(root: Path, worktree: Worktree | None, blobs: Blobs) -> Listing:
    """List everything on disk that git tracks or would offer to add; without a repository, all files of the folder
    `root` except those that a .gitignore in it excludes. Nested repositories and submodules are listed by their own
    rules. Indexed blobs don't count if they have another format than `blobs`."""
    if worktree:
        git = worktree.git()
    else:
        git = blobs.git("no-index", GIT_WORK_TREE=str(root))
        git.folder = root
    listing, reader = Listing(), _Reader(root)
    others = _others(git)
    nested = [path.rstrip(b"/") for path in others if path.endswith(b"/")]
    if worktree:
        nested += _add_tracked(worktree, reader, listing, others, blobs)
    for path in others:
        if not path.endswith(b"/") and (found := reader.stat(path)) and not stat.S_ISDIR(found.st_mode):
            listing.files[path] = ListedFile(found)
    listing.folders = find_folders(git, root, listing.files, [*listing.submodules, *nested])
    for path in nested:
        _add_nested(root, path, listing, blobs)
    return listing


def within(folder: bytes, path: bytes) -> bytes:
    """Return a path relative to `folder` as one relative to the root."""
    return folder + b"/" + path if folder and path else folder or path


def _add_tracked(
    worktree: Worktree, reader: _Reader, listing: Listing, others: list[bytes], blobs: Blobs
) -> list[bytes]:
    """Add the repository and the files in its index. Return the submodules that are checked out."""
    known = worktree.object_format == blobs.object_format
    if known:
        listing.objects += [worktree.objects, *([worktree.aside] if worktree.promisor else [])]
    index, checked_out = _index(worktree), []
    entries = {entry.path: entry for entry in index}
    for path, entry in entries.items():
        found = reader.stat(path)
        if found is None:
            continue
        if not stat.S_ISDIR(found.st_mode):
            indexed = entry.id if known and entry.mode != GITLINK and _may_be(entry, found) else None
            clean = known and _same(entry, found, worktree.indexed_at)
            listing.files[path] = ListedFile(found, indexed if clean else None, indexed, clean)
        elif entry.mode == GITLINK:
            folder = os.path.join(os.fsencode(worktree.root), path)
            if os.path.lexists(folder + b"/.git") or os.listdir(folder):
                checked_out.append(path)
            else:
                listing.submodules[path] = entry.id
    has_attributes = worktree.has_attributes or any(
        path.endswith(b".gitattributes") for paths in (entries, others) for path in paths
    )
    filtered = _filtered(worktree, listing.files) if has_attributes else set()
    listing.repositories.append(Inside(b"", worktree, index, filtered))
    if has_attributes or worktree.converts or worktree.promisor:
        for path in _inexact(worktree, listing.files, filtered, blobs):
            listing.files[path] = replace(listing.files[path], id=None)
    return checked_out


def _index(worktree: Worktree) -> list[Indexed]:
    output = worktree.git().run("ls-files", "--stage", "--debug", "-z")
    entries: list[Indexed] = []
    understood = 0
    for match in _ENTRY.finditer(output):
        understood += len(match[0])
        mode, oid, stage, path, *numbers, flags = match.groups()
        stamp = tuple(map(int, numbers)) if stage == b"0" else ()
        bits = int(flags, 16)  # git's cache.h
        marks = (bool(bits & 0x8000), bool(bits & 1 << 30), bool(bits & 1 << 29))
        entries.append(Indexed(path, mode.decode(), oid.decode(), int(stage), stamp, *marks))
    if understood != len(output):
        raise UsageError(
            "dstack can't read how this version of git lists its index", hint="report the output of: git version"
        )
    return entries


def _may_be(entry: Indexed, found: os.stat_result) -> bool:
    """Return whether the file may still match the index: its size does, or git did not record one."""
    return not entry.stamp or entry.stamp[-1] in (0, found.st_size & 0xFFFFFFFF)


def _same(entry: Indexed, found: os.stat_result, indexed_at: int) -> bool:
    """Return whether the file is untouched since git read it. One that changed at the instant the index was written
    may look the same, and is not trusted (gitformat-index, "racy git")."""
    return found.st_mtime_ns < indexed_at and as_recorded(entry, found)


def as_recorded(entry: Indexed, found: os.stat_result) -> bool:
    """Return whether the file's status is the one that git recorded."""
    if not entry.stamp or entry.stamp[-1] != found.st_size & 0xFFFFFFFF:
        return False
    low = 0xFFFFFFFF
    stamp = (
        *divmod(found.st_ctime_ns, 10**9),
        *divmod(found.st_mtime_ns, 10**9),
        found.st_ino & low,
        found.st_uid & low,
        found.st_gid & low,
        found.st_size & low,
    )
    is_link = stat.S_ISLNK(found.st_mode)
    return entry.stamp == stamp and is_link == (entry.mode == LINK)


def _inexact(worktree: Worktree, files: dict[bytes, ListedFile], filtered: set[bytes], blobs: Blobs) -> list[bytes]:
    """Return the clean files whose indexed blob may not have the bytes on disk. Line ends and `ident` change the size
    whenever they change anything; with a filter or an encoding, the file must be read to find out."""
    clean = {path: file for path, file in files.items() if file.id}
    asked = "".join(f"{file.id}\n" for file in clean.values()).encode()
    git = blobs.git(GIT_OBJECT_DIRECTORY=str(worktree.objects))
    sizes = git.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).splitlines()
    pairs = zip(clean.items(), sizes, strict=True)
    return [path for (path, file), size in pairs if path in filtered or size != b"%d" % file.stat.st_size]


def _filtered(worktree: Worktree, paths: Iterable[bytes]) -> set[bytes]:
    """Return the paths whose content git converts by a filter or an encoding."""
    names = b"".join(path + b"\0" for path in paths)
    output = worktree.git().run("check-attr", "-z", "--stdin", "filter", "working-tree-encoding", stdin=names)
    words = output.split(b"\0")
    return {
        path for path, value in zip(words[0::3], words[2::3], strict=False) if value not in (b"unspecified", b"unset")
    }


def _others(git: Git) -> list[bytes]:
    """Return untracked files that are not ignored; a nested repository ends in '/'."""
    process = git.start("ls-files", "--others", "--exclude-standard", "-z")
    stdout, stderr = process.communicate()
    if process.returncode != 0:
        raise GitError(("ls-files",), process.returncode, stderr)
    if unreadable := _UNREADABLE.findall(os.fsdecode(stderr)):
        raise unreadable_error([f"{path}: {why}" for path, why in unreadable])
    return [path for path in stdout.split(b"\0") if path]


def unreadable_error(paths: list[str]) -> UsageError:
    """Return an error that names the unreadable paths."""
    shown = "\n".join(f"  {path}" for path in paths[:20]) + ("\n  ..." if len(paths) > 20 else "")
    return UsageError(
        f"these paths can't be read, so nothing was sent:\n{shown}",
        hint="make them readable or add them to .gitignore, then try again",
    )


class _Reader:
    """Reads the status of files below a root. Never follows a link that stands in place of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root) + b"/"
        self.folders: dict[bytes, bool] = {b"": True}

    def stat(self, path: bytes) -> os.stat_result | None:
        """Return the status of the file, link or folder at `path`, None if it is missing or something else."""
        if not self._is_folder(os.path.dirname(path)):
            return None
        try:
            found = os.lstat(self.root + path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable_error([f"{os.fsdecode(path)}: {error.strerror}"]) from error
        mode = found.st_mode
        return found if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode) else None

    def _is_folder(self, path: bytes) -> bool:
        if path not in self.folders:
            full = self.root + path
            inside = self._is_folder(os.path.dirname(path))
            self.folders[path] = inside and os.path.isdir(full) and not os.path.islink(full)
        return self.folders[path]


def _add_nested(root: Path, path: bytes, listing: Listing, blobs: Blobs) -> None:
    """Add the files of a nested repository as plain files."""
    folder = root / os.fsdecode(path)
    inner = locate(folder, blobs.scratch)
    if inner is not None and not inner.root.samefile(folder):
        inner = None
    part = list_tree(folder, inner, blobs)
    listing.nested.append(path)
    listing.files.update((within(path, name), found) for name, found in part.files.items())
    listing.submodules.update((within(path, name), commit) for name, commit in part.submodules.items())
    listing.folders.update((within(path, name), mode) for name, mode in part.folders.items())
    listing.objects.extend(part.objects)
    listing.repositories.extend(replace(each, path=within(path, each.path)) for each in part.repositories)
