"""Lists the files of a working tree, and which of them git's index already has byte for byte."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dstack.errors import UsageError
from dstack.plumbing.git import Git, GitError
from dstack.plumbing.trees import GITLINK, LINK
from dstack.snapshot.folders import find_folders
from dstack.snapshot.worktree import Worktree, locate

ATTRIBUTES = b".gitattributes"

# An index entry as `git ls-files --stage --debug -z` prints it.
_ENTRY = re.compile(
    rb"(?P<mode>\d{6}) (?P<id>[0-9a-f]{40,64}) (?P<stage>[0-3])\t(?P<path>[^\0]+)\0"
    rb"  ctime: (\d+):(\d+)\n  mtime: (\d+):(\d+)\n  dev: \d+\tino: (\d+)\n"
    rb"  uid: (\d+)\tgid: (\d+)\n  size: (\d+)\tflags: (?P<flags>[0-9a-f]+)\n"
)
_UNREADABLE = re.compile(r"could not open directory '(.*)': (.*)")


@dataclass(frozen=True)
class Indexed:
    """An index entry. `stamp` is the file's status when git last found it to match the blob; `stage` is 0 unless the
    path is unmerged; `flags` are those of git's cache.h."""

    path: bytes
    mode: str
    id: str
    stage: int
    flags: int
    stamp: tuple[int, ...]

    @property
    def assumed(self) -> bool:
        """Marked assume-unchanged."""
        return bool(self.flags & 0x8000)

    @property
    def skipped(self) -> bool:
        """Marked skip-worktree, as files outside a sparse checkout are."""
        return bool(self.flags & 1 << 30)

    @property
    def intended(self) -> bool:
        """Added with `git add -N`."""
        return bool(self.flags & 1 << 29)


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


def list_repository(worktree: Worktree, scratch: Path, object_format: str) -> Listing:
    """List everything on disk that git tracks or would offer to add. Nested repositories and submodules are listed by
    their own rules. `scratch` is an empty bare repository; blobs in another format than `object_format` don't count."""
    known = worktree.object_format == object_format
    listing = Listing(objects=_objects(worktree) if known else [])
    index, others = _index(worktree), _others(worktree.git())
    entries = {entry.path: entry for entry in index}
    reader = _Reader(worktree.root)
    nested = [path.rstrip(b"/") for path in others if path.endswith(b"/")]
    candidates: dict[bytes, Indexed] = {}
    for path, entry in entries.items():
        found = reader.stat(path)
        if found is None:
            continue
        if stat.S_ISDIR(found.st_mode):
            if entry.mode == GITLINK:
                _submodule(worktree, path, entry.id, listing, nested)
            continue
        clean = known and _same(entry, found, worktree.indexed_at)
        comparable = known and entry.mode != GITLINK and _may_be(entry, found)
        listing.files[path] = ListedFile(found, None, entry.id if comparable else None, clean)
        if clean:
            candidates[path] = entry
    has_attributes = worktree.has_attributes or any(
        path == ATTRIBUTES or path.endswith(b"/" + ATTRIBUTES) for paths in (entries, others) for path in paths
    )
    filtered = _filtered(worktree, listing.files) if has_attributes else set()
    listing.repositories.append(Inside(b"", worktree, index, filtered))
    for path, entry in _unfiltered(worktree, candidates, listing.files, has_attributes, filtered, scratch):
        listing.files[path] = ListedFile(listing.files[path].stat, entry.id, entry.id, True)
    reader.add((path for path in others if not path.endswith(b"/")), listing)
    listing.folders = find_folders(worktree.git(), worktree.root, listing.files, [*listing.submodules, *nested])
    for path in nested:
        _nested(worktree.root, path, listing, scratch, object_format)
    return listing


def list_folder(root: Path, scratch: Path, object_format: str) -> Listing:
    """List all files of a folder outside any repository, except those that a .gitignore in it excludes."""
    listing = Listing()
    git = Git.within(scratch, GIT_WORK_TREE=str(root), GIT_INDEX_FILE=str(scratch / "no-index"))
    git.folder = root
    others = _others(git)
    nested = [path.rstrip(b"/") for path in others if path.endswith(b"/")]
    _Reader(root).add((path for path in others if not path.endswith(b"/")), listing)
    listing.folders = find_folders(git, root, listing.files, nested)
    for path in nested:
        _nested(root, path, listing, scratch, object_format)
    return listing


def _objects(worktree: Worktree) -> list[Path]:
    return [worktree.objects, worktree.aside] if worktree.promisor else [worktree.objects]


def _index(worktree: Worktree) -> list[Indexed]:
    output = worktree.git().run("ls-files", "--stage", "--debug", "-z")
    entries: list[Indexed] = []
    end = 0
    for match in _ENTRY.finditer(output):
        if match.start() != end:
            break
        end = match.end()
        mode, oid, stage, path, *numbers, flags = match.groups()
        stamp = tuple(map(int, numbers)) if stage == b"0" else ()
        entries.append(Indexed(path, mode.decode(), oid.decode(), int(stage), int(flags, 16), stamp))
    if end != len(output):
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
    if found.st_mtime_ns >= indexed_at or not entry.stamp or entry.stamp[-1] != found.st_size & 0xFFFFFFFF:
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


def _unfiltered(
    worktree: Worktree,
    candidates: dict[bytes, Indexed],
    files: dict[bytes, ListedFile],
    has_attributes: bool,
    filtered: set[bytes],
    scratch: Path,
) -> Iterator[tuple[bytes, Indexed]]:
    """Yield those whose indexed blob has exactly the bytes on disk. Line ends and `ident` change the size whenever they
    change anything; with a filter or an encoding, the file must be read to find out."""
    if not (has_attributes or worktree.converts or worktree.promisor):
        yield from candidates.items()
        return
    objects = Git.within(scratch, GIT_OBJECT_DIRECTORY=str(worktree.objects))
    asked = "".join(f"{entry.id}\n" for entry in candidates.values()).encode()
    sizes = objects.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).splitlines()
    for (path, entry), size in zip(candidates.items(), sizes, strict=True):
        if path not in filtered and size.isdigit() and int(size) == files[path].stat.st_size:
            yield path, entry


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

    def add(self, paths: Iterable[bytes], listing: Listing) -> None:
        for path in paths:
            found = self.stat(path)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                listing.files[path] = ListedFile(found)

    def _is_folder(self, path: bytes) -> bool:
        known = self.folders.get(path)
        if known is None:
            known = self._is_folder(os.path.dirname(path))
            if known:
                full = self.root + path
                known = os.path.isdir(full) and not os.path.islink(full)
            self.folders[path] = known
        return known


def _submodule(worktree: Worktree, path: bytes, commit: str, listing: Listing, nested: list[bytes]) -> None:
    folder = os.path.join(os.fsencode(worktree.root), path)
    if os.path.lexists(os.path.join(folder, b".git")) or os.listdir(folder):
        nested.append(path)
    else:
        listing.submodules[path] = commit


def _nested(root: Path, path: bytes, listing: Listing, scratch: Path, object_format: str) -> None:
    """Add the files of a nested repository as plain files."""
    folder = root / os.fsdecode(path)
    inner = locate(folder, scratch)
    if inner is not None and inner.root.samefile(folder):
        part = list_repository(inner, scratch, object_format)
    else:
        part = list_folder(folder, scratch, object_format)
    listing.nested.append(path)
    listing.files.update((path + b"/" + name, found) for name, found in part.files.items())
    listing.submodules.update((path + b"/" + name, commit) for name, commit in part.submodules.items())
    listing.folders.update((path + b"/" * bool(name) + name, mode) for name, mode in part.folders.items())
    listing.objects.extend(part.objects)
    listing.repositories.extend(
        Inside(path + b"/" * bool(each.path) + each.path, each.worktree, each.index, each.filtered)
        for each in part.repositories
    )
