"""Takes a snapshot of a working tree: its raw bytes as a git tree, in a scratch repository.

The user's own repository is only read: index, refs, stash and objects stay unchanged, and no lock is taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import msgspec

from dstack.errors import UsageError
from dstack.model.code.snapshot import PLAIN, Snapshot
from dstack.model.code.tree import Change
from dstack.plumbing.git import Git, make_bare, require_git
from dstack.plumbing.packs import BASES, commit_of, write_pack
from dstack.plumbing.trees import GITLINK, differences, make_tree
from dstack.snapshot.blobs import Blobs, ChangedError, unchanged
from dstack.snapshot.exclusions import leave_out
from dstack.snapshot.git_status import GitStatus, staged
from dstack.snapshot.guard import LIMIT, Guard
from dstack.snapshot.history import with_history
from dstack.snapshot.identity import repo_id
from dstack.snapshot.listing import ListedFile, Listing, list_folder, list_repository, unreadable_error
from dstack.snapshot.partial_clone import fetch_missing
from dstack.snapshot.permissions import describe, store
from dstack.snapshot.scratch import Scratch
from dstack.snapshot.worktree import Worktree, locate

TRIES = 3


@dataclass(frozen=True)
class Taken:
    """A snapshot, and what differs from its commit. Leaving the context removes the scratch folder."""

    snapshot: Snapshot
    changes: list[Change]
    scratch: Scratch
    worktree: Worktree | None

    def pack(self, known: Sequence[str] | None = None) -> Path:
        """Write a pack for a server that has these names (default: the commit and its history), as deltas against
        their files. Names that are not here are ignored."""
        if known is None:
            return self._write("thin.pack", [name for name in (self.snapshot.commit, self.snapshot.history) if name])
        self._fetch()
        git = Git.within(self.scratch.path / "git")
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
            fetch_missing(self.worktree, self.snapshot, self.scratch.path / "git")

    def close(self) -> None:
        """Remove the folder."""
        self.scratch.close()

    def __enter__(self) -> Taken:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, name: str, known: list[str]) -> Path:
        return write_pack(Git.within(self.scratch.path / "git"), self.snapshot, known, self.scratch.path / name)


def take(start: Path, *, limit: int = LIMIT, depths: Iterable[int] = (1,)) -> Taken:
    """Take a snapshot of the working tree that the project folder `start` is in, without ignored files.

    `limit` is on changed and untracked content, in bytes (0: none). `depths` are how many commits of history jobs want
    (0: all). Raises UsageError above the limit, without a working tree, and if a file is unreadable or keeps changing.
    """
    require_git()
    start = start.resolve()
    scratch = Scratch()
    try:
        return _take(start, scratch, limit, set(depths))
    except BaseException:
        scratch.close()
        raise


def _take(start: Path, folder: Scratch, limit: int, depths: set[int]) -> Taken:
    scratch = folder.path / "git"
    worktree = locate(start, scratch)
    object_format = worktree.object_format if worktree else "sha1"
    make_bare(scratch, object_format)
    for _ in range(TRIES):
        try:
            listing = _list(worktree, start, scratch, object_format)
            make_bare(scratch, object_format, listing.objects)
            root = worktree.root if worktree else start
            blobs = Blobs(scratch / "objects", object_format)
            left_out = leave_out(root, listing, scratch, object_format)
            guard = Guard(limit)
            guard.expect(listing, staged(worktree) if worktree and worktree.commit else set(listing.files))
            known = _read(root, listing, blobs, guard)
            tree = _make(listing, known, scratch)
            index = GitStatus(scratch, blobs, listing, known, left_out).tree() if worktree else None
            taken = _describe(worktree, start, folder, listing, left_out, tree, index)
            snapshot = _with_modes(taken.snapshot, listing, blobs, scratch)
            return replace(taken, snapshot=with_history(snapshot, worktree, depths))
        except ChangedError as error:
            changed = error
    raise UsageError(
        f"{changed.message}; nothing was sent",
        hint="wait until nothing writes to it, or add it to .gitignore",
    )


def _list(worktree: Worktree | None, start: Path, scratch: Path, object_format: str) -> Listing:
    if worktree is None:
        return list_folder(start, scratch, object_format)
    return list_repository(worktree, scratch, object_format)


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


def _make(listing: Listing, known: dict[bytes, str], scratch: Path) -> str:
    """Write the tree and return its id."""
    entries = [(GITLINK, commit, path) for path, commit in listing.submodules.items()]
    entries += [(found.mode, known[path], path) for path, found in listing.files.items()]
    return make_tree(Git.within(scratch, GIT_INDEX_FILE=str(scratch / "index")), entries)


def _blob(blobs: Blobs, file: bytes, path: bytes, found: ListedFile, guard: Guard) -> str:
    if found.id is not None:
        return found.id
    if found.indexed is not None:
        if blobs.hash(file, found.stat) == found.indexed:
            return found.indexed
        if path not in guard.sizes:
            guard.add(path, found.stat.st_size)
    return blobs.store(file, found.stat)


def _with_modes(snapshot: Snapshot, listing: Listing, blobs: Blobs, scratch: Path) -> Snapshot:
    umask, modes = describe(listing)
    found = msgspec.structs.replace(snapshot, modes=store(Git.within(scratch), blobs, modes))
    # msgspec omits a default only if it is the same object.
    return found if umask == int(PLAIN, 8) else msgspec.structs.replace(found, umask=f"{umask:03o}")


def _check(base: bytes, listing: Listing) -> None:
    for path, mode in listing.folders.items():
        try:
            about = os.lstat(base + path)
        except OSError as error:
            raise ChangedError(path) from error
        if not stat.S_ISDIR(about.st_mode) or stat.S_IMODE(about.st_mode) != mode:
            raise ChangedError(path)
    for path, found in listing.files.items():
        try:
            now = os.lstat(base + path)
        except OSError as error:
            raise ChangedError(path) from error
        if not unchanged(found.stat, now):
            raise ChangedError(path)


def _describe(
    worktree: Worktree | None,
    start: Path,
    scratch: Scratch,
    listing: Listing,
    left_out: set[bytes],
    tree: str,
    index: str | None,
) -> Taken:
    if worktree is None:
        snapshot = Snapshot(repo=repo_id(None, start), tree=tree, dirty=True, git=False)
    else:
        project = start.relative_to(worktree.root.resolve())
        snapshot = Snapshot(
            repo=repo_id(worktree.url, worktree.root, worktree.object_format),
            tree=tree,
            index=index,
            commit=worktree.commit,
            url=worktree.url,
            branch=worktree.branch,
            project="" if project == Path() else str(project),
            object_format=worktree.object_format,
        )
    absent = left_out | {entry.path for each in listing.repositories[:1] for entry in each.index if entry.skipped}
    found = differences(Git.within(scratch.path / "git"), snapshot.commit, tree)
    changes, dirty = [], worktree is None
    for difference in found:
        file = listing.files.get(difference.path)
        size = file.stat.st_size if file else 0
        changes.append(Change(os.fsdecode(difference.path), difference.change, size))
        same = file.clean and file.indexed == difference.old if file else difference.path in absent
        dirty = dirty or not same
    if worktree and listing.nested:
        dirty = _is_dirty(worktree)
    return Taken(msgspec.structs.replace(snapshot, dirty=dirty), changes, scratch, worktree)


def _is_dirty(worktree: Worktree) -> bool:
    """Ask git, which alone can compare submodules."""
    return bool(worktree.git().run("status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=none"))
