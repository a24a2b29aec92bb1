"""Takes a snapshot of a working tree: its raw bytes as a git tree, in a scratch repository.

The user's own repository is only read: index, refs, stash and objects stay unchanged, and no lock is taken.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dstack.errors import UsageError
from dstack.model.code.snapshot import PLAIN, Snapshot
from dstack.model.code.tree import Change, TreeFile
from dstack.plumbing.git import Git, make_bare, require_git
from dstack.plumbing.packs import BASES, commit_of, write_pack
from dstack.plumbing.trees import GITLINK, LINK, differences, make_tree
from dstack.snapshot.blobs import Blobs, ChangedError, look, unchanged
from dstack.snapshot.exclusions import leave_out
from dstack.snapshot.git_status import GitStatus, staged
from dstack.snapshot.guard import LIMIT, Guard
from dstack.snapshot.history import fetch_missing, with_history
from dstack.snapshot.listing import ListedFile, Listing, list_tree, unreadable_error, within
from dstack.snapshot.permissions import describe, store
from dstack.snapshot.scratch import scratch_folder
from dstack.snapshot.worktree import Worktree, locate, repo_id

TRIES = 3


@dataclass(frozen=True)
class SnapshotContents:
    """What is in a snapshot; paths are relative to the git root. `changes` are all differences from the commit.
    `changed` are the paths of tracked files that git would call modified, added or deleted, and of nested repositories
    with such files; `untracked` are those of files that git does not track. `new` are the files that the commit does
    not have, except tracked ones of nested repositories. `links` are symbolic links."""

    snapshot: Snapshot
    changes: list[Change]
    changed: tuple[str, ...]
    untracked: tuple[str, ...]
    new: tuple[str, ...]
    links: frozenset[str]


@dataclass(frozen=True)
class Taken(SnapshotContents):
    """A snapshot that can be sent. `scratch` is a folder with a bare repository `git`, `root` the working tree's."""

    scratch: Path
    worktree: Worktree | None
    root: Path

    def pack(self, known: Sequence[str] | None = None) -> Path:
        """Write a pack for a server that has these names (default: the commit and its history), as deltas against
        their files. Names that are not here are ignored."""
        if known is None:
            return self._write("thin.pack", [name for name in (self.snapshot.commit, self.snapshot.history) if name])
        self._fetch()
        git = Git.within(self.scratch / "git")
        commits = {name: commit_of(name) for name in known}
        asked = "".join(f"{oid}\n" for oid in commits.values()).encode()
        answers = git.run("cat-file", "--batch-check=%(objecttype)", stdin=asked).decode().splitlines()
        here = [name for name, answer in zip(commits, answers, strict=True) if not answer.endswith("missing")]
        whole = [name for name in here if git.succeeds("rev-list", "--objects", "--no-walk", "--quiet", commits[name])]
        return self._write("known.pack", whole[:BASES])

    def full_pack(self) -> Path:
        """Write a pack of all objects, for a server that has none of them. What a partial clone lacks is fetched from
        its remote into the scratch folder."""
        self._fetch()
        return self._write("full.pack", [])

    def _fetch(self) -> None:
        if self.worktree and self.worktree.promisor and self.snapshot.commit:
            fetch_missing(self.worktree, self.snapshot, self.scratch / "git")

    def _write(self, name: str, known: list[str]) -> Path:
        return write_pack(Git.within(self.scratch / "git"), self.snapshot, known, self.scratch / name)


@contextmanager
def take(start: Path, *, limit: int = LIMIT, depths: Iterable[int] = (1,)) -> Iterator[Taken]:
    """Take a snapshot of the working tree that the project folder `start` is in, without ignored files.

    `limit` is on changed and untracked content, in bytes (0: none). `depths` are how many commits of history jobs want
    (0: all). Raises UsageError above the limit, without a working tree, and if a file is unreadable or keeps changing.
    """
    require_git()
    start = start.resolve()
    with scratch_folder() as folder:
        worktree = locate(start, folder / "git")
        blobs = Blobs(folder / "git", worktree.object_format if worktree else "sha1")
        make_bare(blobs.scratch, blobs.object_format)
        found = _take(start, worktree, blobs, limit)
        snapshot = with_history(found.snapshot, worktree, set(depths))
        root = worktree.root if worktree else start
        yield Taken(**{**vars(found), "snapshot": snapshot}, scratch=folder, worktree=worktree, root=root)


def list_files(start: Path) -> tuple[str, list[TreeFile]]:
    """Return the project's path below the git root, and the files that a snapshot would have, without reading them:
    their `id` is empty. Raises the same errors as `take`."""
    require_git()
    start = start.resolve()
    with scratch_folder() as folder:
        worktree = locate(start, folder / "git")
        root = worktree.root if worktree else start
        blobs = Blobs(folder / "git", worktree.object_format if worktree else "sha1")
        make_bare(blobs.scratch, blobs.object_format)
        try:
            listing = list_tree(root, worktree, blobs)
            make_bare(blobs.scratch, blobs.object_format, listing.objects)
            leave_out(root, listing, blobs)
        except ChangedError as error:
            raise UsageError(f"{error.message}; try again when nothing writes to it") from error
    project = _describe(start, worktree, "").project
    return project, [TreeFile(os.fsdecode(path), found.mode, "") for path, found in listing.files.items()]


def _take(start: Path, worktree: Worktree | None, blobs: Blobs, limit: int) -> SnapshotContents:
    for _ in range(TRIES):
        try:
            return _try(start, worktree, blobs, limit)
        except ChangedError as error:
            changed = error
    raise UsageError(
        f"{changed.message}; nothing was sent",
        hint="wait until nothing writes to it, or add it to .gitignore",
    )


def _try(start: Path, worktree: Worktree | None, blobs: Blobs, limit: int) -> SnapshotContents:
    root = worktree.root if worktree else start
    listing = list_tree(root, worktree, blobs)
    make_bare(blobs.scratch, blobs.object_format, listing.objects)
    left_out = leave_out(root, listing, blobs)
    guard = Guard(limit, listing, staged(worktree) if worktree and worktree.commit else set(listing.files))
    known = _read(root, listing, blobs, guard)
    entries = [(GITLINK, commit, path) for path, commit in listing.submodules.items()]
    entries += [(found.mode, known[path], path) for path, found in listing.files.items()]
    tree = make_tree(blobs.git(), entries)
    index = GitStatus(blobs, listing, known, left_out).tree() if worktree else None
    snapshot = _describe(start, worktree, tree)
    changes, changed = _compare(snapshot, listing, blobs, left_out)
    dirty = bool(changed) or not snapshot.git
    if worktree and listing.nested:  # git alone can compare submodules; one by one, because each has its own settings
        options = ("--porcelain", "-z", "--no-renames", "--ignore-submodules=dirty")
        found = {each.path: each.worktree.git().run("status", *options) for each in listing.repositories}
        dirty = any(found.values())
        modified = (path for path, lines in found.items() if re.search(rb"(?:^|\0)(?!\?\?)[^\0]", lines))
        nested = {os.fsdecode(path) for path in listing.nested}
        outside = (path for path in changed if path not in nested and not path.startswith(_prefixes(nested)))
        changed = {*outside, *(os.fsdecode(path) for path in modified if path)}
    umask, modes = describe(listing)
    snapshot = msgspec.structs.replace(
        snapshot,
        dirty=dirty,
        index=index,
        modes=store(blobs, modes),
        # msgspec omits a default only if it is the same object.
        umask=PLAIN if umask == int(PLAIN, 8) else f"{umask:03o}",
    )
    return _contents(snapshot, listing, changes, changed)


def _contents(snapshot: Snapshot, listing: Listing, changes: list[Change], changed: set[str]) -> SnapshotContents:
    tracked = {within(each.path, entry.path) for each in listing.repositories for entry in each.index}
    untracked = {os.fsdecode(path) for path in listing.files.keys() - tracked}
    nested = _prefixes(map(os.fsdecode, listing.nested))
    new = (change.path for change in changes if change.change == "added")
    return SnapshotContents(
        snapshot,
        changes,
        changed=tuple(sorted(changed - untracked)),
        untracked=tuple(sorted(untracked)),
        new=tuple(path for path in new if path in untracked or not path.startswith(nested)),
        links=frozenset(os.fsdecode(path) for path, file in listing.files.items() if file.mode == LINK),
    )


def _read(root: Path, listing: Listing, blobs: Blobs, guard: Guard) -> dict[bytes, str]:
    """Return the blob of every file. All files are checked again at the end: files that change together, as in a
    checkout, must not be shipped half old and half new."""
    base = os.fsencode(root) + b"/"
    known: dict[bytes, str] = {}
    unreadable: list[str] = []
    for path, found in listing.files.items():
        try:
            known[path] = _blob(blobs, base + path, path, found, guard)
        except PermissionError as error:
            unreadable.append(f"{os.fsdecode(path)}: {error.strerror}")
        except OSError as error:
            raise ChangedError(path) from error
    if unreadable:
        raise unreadable_error(unreadable)
    _check(base, listing)
    return known


def _blob(blobs: Blobs, file: bytes, path: bytes, found: ListedFile, guard: Guard) -> str:
    if found.id is not None:
        return found.id
    if found.indexed is not None:
        if blobs.hash(file, found.stat) == found.indexed:
            return found.indexed
        if path not in guard.sizes:
            guard.add(path, found.stat.st_size)
    return blobs.store(file, found.stat)


def _check(base: bytes, listing: Listing) -> None:
    for path, mode in listing.folders.items():
        found = look(base, path).st_mode
        if not stat.S_ISDIR(found) or stat.S_IMODE(found) != mode:
            raise ChangedError(path)
    for path, listed in listing.files.items():
        if not unchanged(listed.stat, look(base, path)):
            raise ChangedError(path)


def _describe(start: Path, worktree: Worktree | None, tree: str) -> Snapshot:
    if worktree is None:
        return Snapshot(repo=repo_id(None, start), tree=tree, git=False)
    project = start.relative_to(worktree.root.resolve())
    return Snapshot(
        repo=repo_id(worktree.url, worktree.root, worktree.object_format),
        tree=tree,
        commit=worktree.commit,
        url=worktree.url,
        branch=worktree.branch,
        project="" if project == Path() else str(project),
        object_format=worktree.object_format,
    )


def _prefixes(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/" for folder in folders)


def _compare(snapshot: Snapshot, listing: Listing, blobs: Blobs, left_out: set[bytes]) -> tuple[list[Change], set[str]]:
    """Return what differs from the commit, and the paths of what git would call modified."""
    absent = left_out | {entry.path for each in listing.repositories[:1] for entry in each.index if entry.skipped}
    changes, modified = [], set[str]()
    for difference in differences(blobs.git(), snapshot.commit, snapshot.tree):
        file = listing.files.get(difference.path)
        size = file.stat.st_size if file else 0
        changes.append(Change(os.fsdecode(difference.path), difference.change, size))
        same = file.clean and file.indexed == difference.old if file else difference.path in absent
        if not same:
            modified.add(changes[-1].path)
    return changes, modified
