"""The server's bare repository of a project. It holds the submitted snapshots and nothing else.

Its refs are read with GitPython. Objects are read with git itself: GitPython finds no object of a SHA-256 repository,
and its diffs are empty if a name is not UTF-8. Its commands take 6 ms instead of 1.5, and inherit the variables of a
git hook from which the server may have been started.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dstack.errors import DstackError, MissingBaseError, UsageError, disk_full
from dstack.mirror.health import Health
from dstack.model.code.snapshot import Snapshot
from dstack.model.code.snapshot import trouble as snapshot_trouble
from dstack.model.code.tree import Change, SizedFile, TreeFile
from dstack.model.job.reasons import ReasonCode
from dstack.plumbing import modes, trees
from dstack.plumbing.disk import sync, sync_tree
from dstack.plumbing.git import Git, GitError, make_bare, quoted, write_file
from dstack.plumbing.packs import CUTS, LEFTOVERS, is_complete, write_pack

if TYPE_CHECKING:
    from git import Reference

REFS = "refs/dstack"
YOUNG = 600.0
"""Seconds for which an unused snapshot is kept: it may be about to become a run."""
KNOWN = 20
"""The most names that the builder of a pack is told, or that a pack builds on."""

log = logging.getLogger("dstack.mirror")

_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Mirror:
    """The mirror at `path`, created when the first pack arrives. Threads and processes may use it concurrently."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def receive(self, snapshot: Snapshot, pack: Path) -> None:
        """Take in a pack that completes the snapshot, and write it to disk. Raises MissingBaseError, and keeps nothing
        of the pack, if it does not."""
        _check(snapshot)
        with self._locked():
            self._prepare(snapshot)
            self._look()
            with tempfile.TemporaryDirectory(prefix="in-", dir=self.path) as quarantine, self._synced(snapshot):
                try:
                    self._take_in(snapshot, pack, Path(quarantine))
                except GitError as error:
                    _refuse_full(error)
                    missing = MissingBaseError(
                        f"the server lacks code that this submission builds on: {error.detail}",
                        hint="all of the code must be sent",
                    )
                    missing.known = tuple(self.newest()[:KNOWN])
                    raise missing from error
                Health(self.path).remember()
                self._name(snapshot)

    def has(self, snapshot: Snapshot) -> bool:
        """Return whether every object of the snapshot is here, undamaged."""
        _check(snapshot)
        if not self._exists:
            return False
        with self._locked():
            self._look()
        return is_complete(self._git(), snapshot)

    def files(self, snapshot: Snapshot) -> list[TreeFile]:
        """Return the files of its tree, in git's order, then empty folders and those with unusual permissions. Path
        bytes that are not UTF-8 become surrogate escapes."""
        git = self._git()
        files = (TreeFile(os.fsdecode(path), mode, oid) for mode, oid, _, path in trees.entries(git, snapshot.tree))
        return modes.counted(files, modes.load(git, snapshot.modes))

    def modes_of(self, snapshot: Snapshot) -> modes.Modes:
        """Return the permissions that differ from what the umask gives, and the empty folders."""
        return modes.load(self._git(), snapshot.modes)

    def sizes(self, tree: str) -> list[SizedFile]:
        """Return the tree's files with their sizes in bytes, largest first."""
        found = trees.entries(self._git(), tree, sized=True)
        return sorted((SizedFile(os.fsdecode(path), size) for _, _, size, path in found), key=lambda file: -file.size)

    def changes(self, commit: str | None, tree: str) -> list[Change]:
        """Return what the tree adds, modifies and deletes, compared to the commit."""
        sizes = {oid: size for _, oid, size, _ in trees.entries(self._git(), tree, sized=True)}
        return [
            Change(os.fsdecode(difference.path), difference.change, sizes.get(difference.new, 0))
            for difference in trees.differences(self._git(), commit, tree)
        ]

    def differing(self, one: str, other: str) -> list[str]:
        """Return the paths of the files that are not the same in two trees."""
        return [os.fsdecode(each.path) for each in trees.differences(self._git(), one, other)]

    def diff(self, snapshot: Snapshot) -> bytes:
        """Return the patch from commit to tree, for `git apply`. Comments in front say what a patch can't."""
        base = snapshot.commit or trees.EMPTY_TREE[len(snapshot.tree)]
        options = ("-r", "-p", "--binary", "--full-index", "--no-renames", "--no-textconv", "--no-ext-diff")
        return modes.comments(self.modes_of(snapshot)) + self._git().run("diff-tree", *options, base, snapshot.tree)

    @contextmanager
    def pack(self, snapshot: Snapshot, theirs: Iterable[str] = ()) -> Iterator[Path]:
        """Yield a file with what a host lacks that has these commits, trees and histories. Those that the mirror itself
        lacks are ignored. The file is removed when the context ends."""
        if not self._exists:
            raise DstackError(
                "the server's copy of the code is gone from its disk",
                hint="run it again: the code will be sent again",
                code=ReasonCode.CODE_DAMAGED,
            )
        theirs = {*theirs}
        # The nearest bases first: git uses only the first few.
        known = [name for name in (self.newest() if theirs else ()) if name in theirs]
        known = sorted(known, key=lambda name: name not in snapshot.names)[:KNOWN]
        with tempfile.TemporaryDirectory(prefix="out-", dir=self.path) as folder:
            try:
                pack = write_pack(self._git(), snapshot, known, Path(folder) / "pack")
            except GitError as error:
                _refuse_full(error)
                message, hint = f"the server's copy of the code can't be read: {error.detail}", "dstack server logs"
                raise self.damage() or DstackError(message, hint=hint, code=ReasonCode.CODE_DAMAGED) from error
            yield pack

    def damage(self) -> DstackError | None:
        """Verify everything and remove what is damaged. Return the error to report, None if nothing was. Needed because
        git does not verify objects that it copies from pack to pack."""
        with self._locked():
            if not self._look(everything=True):
                return None
        message = "the server's copy of the code was damaged on its disk and has been removed"
        return DstackError(message, hint="run it again: the code will be sent again", code=ReasonCode.CODE_DAMAGED)

    def collect(self, wanted: Iterable[Snapshot], *, older_than: float = YOUNG) -> None:
        """Remove the snapshots that are not `wanted` and came more than `older_than` seconds ago, and put the rest into
        one pack. Removes the mirror if nothing is left."""
        keep = {name for snapshot in wanted for name in snapshot.names}
        with self._locked():
            self._look()
            before = time.time() - older_than
            for ref in [ref for ref in self._refs() if _name(ref) not in keep and self._used(ref) < before]:
                ref.delete(ref.repo, ref)
            if not self._refs():
                shutil.rmtree(self.path, ignore_errors=True)
                return
            self._open_cuts()
            repack = ("repack", "-a", "-d", "-q", "-l")
            if not self._git().succeeds(*repack):
                self._forget_lost()  # names that lost objects prevent it
                self._git().run(*repack)
            for file in (self.path / CUTS).glob("*"):
                if file.name not in keep and file.stat().st_mtime < before:
                    file.unlink()
            Health(self.path).remember()

    def sweep(self, before: float) -> None:
        """Remove what killed processes left, if it has not changed since `before` (seconds since the epoch), and all of
        a mirror that has no snapshot."""
        with self._locked():
            for left in chain.from_iterable(self.path.glob(pattern) for pattern in LEFTOVERS):
                with suppress(FileNotFoundError):  # its pack has just been sent
                    if left.stat().st_mtime < before:
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
            named = (self.path / "packed-refs").exists() or any((self.path / REFS).glob("*/*"))
            if not named and self.path.stat().st_mtime < before:
                shutil.rmtree(self.path)

    def _look(self, *, everything: bool = False) -> bool:
        """Return whether something was damaged and has been removed."""
        damaged = Health(self.path).look(everything=everything)
        if damaged:
            self._forget_lost()
        return damaged

    def _forget_lost(self) -> None:
        """Remove the names of what is incomplete, so that no pack builds on it."""
        for ref in self._refs():
            if not self._git().succeeds("rev-list", "--objects", "--quiet", ref.path):
                log.warning("%s: removed %s, which lost objects; its code must be sent again", self.path, _name(ref))
                ref.delete(ref.repo, ref)

    @property
    def settled(self) -> bool:
        """Whether no snapshot is so new that it may be about to become a run."""
        return time.time() - max(map(self._used, self._refs()), default=0.0) > YOUNG

    @property
    def packs(self) -> int:
        """How many packs it has: one per submission since it was last collected."""
        return len(list((self.path / "objects/pack").glob("*.pack")))

    def _open_cuts(self) -> None:
        """Remove commits from `shallow` whose parents have arrived since, so that the history behind them is kept."""
        git, kept = self._git(), []
        for commit in self._shallow():
            if not git.succeeds("cat-file", "-e", commit):
                continue
            head = git.run("cat-file", "commit", commit).partition(b"\n\n")[0]
            parents = re.findall(r"^parent (\S+)$", os.fsdecode(head), re.MULTILINE)
            if not parents or not all(git.succeeds("cat-file", "-e", parent) for parent in parents):
                kept.append(commit)
        self._write_shallow(kept)

    def _shallow(self) -> list[str]:
        file = self.path / "shallow"
        return file.read_text().split() if file.exists() else []

    def _write_shallow(self, commits: list[str]) -> None:
        if commits != self._shallow():
            write_file(self.path / "shallow", "".join(f"{oid}\n" for oid in commits))

    @property
    def _exists(self) -> bool:
        return (self.path / "HEAD").exists()

    def _git(self, **variables: str) -> Git:
        return Git.within(self.path, **variables)

    def newest(self) -> list[str]:
        """Return the names of the commits, trees and histories that are here, most recently used first."""
        return [_name(ref) for ref in sorted(self._refs(), key=self._used, reverse=True)]

    def _refs(self) -> list[Reference]:
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # the first command that needs git says that it is missing
        from git import GitCmdObjectDB, Reference, Repo  # takes 0.1 s, for which a start need not wait

        if not self._exists:
            return []
        with Repo(self.path, odbt=GitCmdObjectDB, expand_vars=False) as repo:
            return list(Reference.iter_items(repo, REFS))

    def _used(self, ref: Reference) -> float:
        return self._file(ref.path).stat().st_mtime

    def _file(self, ref: str) -> Path:
        """The file whose time says when the ref was last used. After `git gc` by hand, one file holds many refs."""
        loose = self.path / ref
        return loose if loose.exists() else self.path / "packed-refs"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _prepare(self, snapshot: Snapshot) -> None:
        """Create or repair it. Only the lock's holder writes here: unfinished files are of a killed process. After a
        power cut, refs may be empty, and git would refuse to replace them."""
        unfinished = list(self.path.glob("in-*"))
        if make_bare(self.path, snapshot.object_format) or unfinished:
            sync_tree(self.path)
        for left in unfinished:
            shutil.rmtree(left)
        refs = [path for path in self.path.glob("refs/**/*") if path.is_file()]
        broken = [path for path in refs if path.suffix == ".lock" or not path.stat().st_size]
        for path in (*broken, *self.path.glob("*.new")):
            path.unlink()

    def _parts(self, snapshot: Snapshot) -> dict[Path, int]:
        """The files here that the snapshot needs, each with a number that changes when it is replaced."""
        packs = dict.fromkeys((self.path / "objects/pack").iterdir(), 0)  # their names say what is in them
        others = [self.path / ref for ref in _refs_of(snapshot)]
        others += [self.path / "shallow", self.path / CUTS / (snapshot.history or snapshot.commit or "")]
        return packs | {path: path.stat().st_ino for path in others if path.is_file()}

    @contextmanager
    def _synced(self, snapshot: Snapshot) -> Iterator[None]:
        """Write to disk what is new of the snapshot afterwards, also after an error: it is not new the next time."""
        before = self._parts(snapshot)
        try:
            yield
        finally:
            files = dict(self._parts(snapshot).items() - before.items())
            folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.path)}
            for path in (*files, *folders):
                sync(path)

    def _take_in(self, snapshot: Snapshot, pack: Path, quarantine: Path) -> None:
        (quarantine / "pack").mkdir()
        alone = {"GIT_OBJECT_DIRECTORY": str(quarantine)}
        beside = self._git(**alone, GIT_ALTERNATE_OBJECT_DIRECTORIES=quoted(self.path.absolute() / "objects"))
        try:
            _index(beside, pack)
        except GitError:
            # Damaged objects here don't matter to a pack that needs none of them.
            _index(self._git(**alone), pack)
        if not is_complete(beside, snapshot):
            raise GitError(("rev-list",), 1, b"objects are missing")
        modes.check(beside, snapshot)
        for part in sorted((quarantine / "pack").glob("pack-*"), key=lambda part: part.suffix == ".idx"):
            part.replace(self.path / "objects/pack" / part.name)

    def _name(self, snapshot: Snapshot) -> None:
        """Write the refs that keep the objects. `shallow` records which commits have no parents here."""
        refs = _refs_of(snapshot)
        if snapshot.commit:
            known = self._shallow()
            self._write_shallow([*known, *(commit for commit in snapshot.cut if commit not in known)])
        lines = "".join(f"update {ref} {oid}\n" for ref, oid in refs.items())
        self._git().run("update-ref", "--stdin", stdin=lines.encode())
        for ref in refs:
            os.utime(self._file(ref))


def _name(ref: Reference) -> str:
    return PurePosixPath(ref.path).name


def _refs_of(snapshot: Snapshot) -> dict[str, str]:
    """The refs that keep a snapshot, and what they point to."""
    refs = {f"{REFS}/trees/{tree}": tree for tree in snapshot.trees}
    if snapshot.commit:
        refs[f"{REFS}/commits/{snapshot.commit}"] = snapshot.commit
        if snapshot.history:
            refs[f"{REFS}/histories/{snapshot.history}"] = snapshot.commit
    return refs


def _index(git: Git, source: Path) -> None:
    with source.open("rb") as file:
        git.run("index-pack", "--stdin", "--fix-thin", stdin=file)


def _check(snapshot: Snapshot) -> None:
    """Raise UsageError for ids and a umask that git or a script could take for something else."""
    ids = (*snapshot.objects, *snapshot.shallow, *chain(*snapshot.ends.values()))
    if not all(map(_ID.fullmatch, ids)) or snapshot.object_format not in ("sha1", "sha256"):
        raise UsageError("the snapshot has an invalid object id or object format")
    if why := snapshot_trouble(snapshot):
        raise UsageError(why)
    if not re.fullmatch("0[0-7]{2}", snapshot.umask):
        raise UsageError(f"the snapshot's umask {snapshot.umask!r} is invalid: it must leave the owner all permissions")


def _refuse_full(error: GitError) -> None:
    """Raise DiskFullError if that is why git failed."""
    if error.full:
        raise disk_full(error.detail.splitlines()[-1]) from error
