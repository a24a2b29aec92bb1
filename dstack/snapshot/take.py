"""Takes a snapshot of a working tree: its raw bytes as a git tree, in a scratch repository.

The user's own repository is only read: index, refs, stash and objects stay unchanged, and no lock is taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dstack.errors import UsageError
from dstack.model.code.snapshot import PLAIN, Snapshot
from dstack.model.code.tree import Change
from dstack.plumbing.git import Git, make_bare, require_git
from dstack.plumbing.packs import BASES, commit_of, write_pack
from dstack.plumbing.trees import GITLINK, differences, make_tree
from dstack.snapshot.blobs import Blobs, ChangedError, look, unchanged
from dstack.snapshot.exclusions import leave_out
from dstack.snapshot.git_status import GitStatus, staged
from dstack.snapshot.guard import LIMIT, Guard
from dstack.snapshot.history import fetch_missing, with_history
from dstack.snapshot.listing import ListedFile, Listing, list_tree, unreadable_error
from dstack.snapshot.permissions import describe, store
from dstack.snapshot.scratch import scratch_folder
from dstack.snapshot.worktree import Worktree, locate, repo_id

TRIES = 3


@dataclass(frozen=True)
class Taken:
    """A snapshot, and what differs from its commit. `scratch` is a folder with a bare repository `git`."""

    snapshot: Snapshot
    changes: list[Change]
    scratch: Path
    worktree: Worktree | None

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
        snapshot, changes = _take(start, worktree, blobs, limit)
        yield Taken(with_history(snapshot, worktree, set(depths)), changes, folder, worktree)


def _take(start: Path, worktree: Worktree | None, blobs: Blobs, limit: int) -> tuple[Snapshot, list[Change]]:
    for _ in range(TRIES):
        try:
            return _try(start, worktree, blobs, limit)
        except ChangedError as error:
            changed = error
    raise UsageError(
        f"{changed.message}; nothing was sent",
        hint="wait until nothing writes to it, or add it to .gitignore",
    )


def _try(start: Path, worktree: Worktree | None, blobs: Blobs, limit: int) -> tuple[Snapshot, list[Change]]:
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
    changes, dirty = _compare(snapshot, listing, blobs, left_out)
    if worktree and listing.nested:  # git alone can compare submodules; one by one, because each has its own settings
        options = ("--porcelain", "-z", "--no-renames", "--ignore-submodules=dirty")
        dirty = any(each.worktree.git().run("status", *options) for each in listing.repositories)
    umask, modes = describe(listing)
    return msgspec.structs.replace(
        snapshot,
        dirty=dirty,
        index=index,
        modes=store(blobs, modes),
        # msgspec omits a default only if it is the same object.
        umask=PLAIN if umask == int(PLAIN, 8) else f"{umask:03o}",
    ), changes


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


def _compare(snapshot: Snapshot, listing: Listing, blobs: Blobs, left_out: set[bytes]) -> tuple[list[Change], bool]:
    """Return what differs from the commit, and whether git would call it modified."""
    absent = left_out | {entry.path for each in listing.repositories[:1] for entry in each.index if entry.skipped}
    changes, dirty = [], not snapshot.git
    for difference in differences(blobs.git(), snapshot.commit, snapshot.tree):
        file = listing.files.get(difference.path)
        size = file.stat.st_size if file else 0
        changes.append(Change(os.fsdecode(difference.path), difference.change, size))
        same = file.clean and file.indexed == difference.old if file else difference.path in absent
        dirty = dirty or not same
    return changes, dirty
