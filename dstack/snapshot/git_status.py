"""What git knows of a working tree beyond its commit and its files: index, settings and rules.

It is stored as a git tree, from which `templates/host/code/_furnish.sh.j2` makes the job's `.git`. `root` in it is
the repository itself; `0`, `1` and so on are nested repositories, with the trees of their commits as `0-head`,
`1-head` and so on. Each holds, where needed:

    changes    how the index differs from the commit, as input of `git update-index --index-info`
    files/     contents that the index names and the commit may lack
    assumed, skipped    paths with these flags; filtered files that git finds unchanged are among the assumed
    config     settings that change what git prints
    git/       small files of `.git`: sparse patterns, excludes, attributes
    path, commit, branch    of a nested repository: where it is, its commit as bytes, and its branch
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dstack.plumbing.trees import GITLINK, make_tree
from dstack.snapshot.blobs import Blobs, read
from dstack.snapshot.listing import Indexed, Inside, ListedFile, Listing, as_recorded, within
from dstack.snapshot.worktree import Worktree

Entry = tuple[str, str, bytes]
FILE = "100644"
USUAL_ABBREVIATION = 7


def staged(worktree: Worktree) -> set[bytes]:
    """Return the paths that differ between commit and index; none without a commit."""
    if worktree.commit is None:
        return set()
    options = ("--cached", "--raw", "-z", "--no-renames", "--ignore-submodules=none")
    words = worktree.git().run("diff-index", *options, worktree.commit).split(b"\0")
    return set(words[1::2])


class GitStatus:
    """Makes the tree. `known` maps each file of the snapshot to its blob, and `left_out` are tracked files that the
    snapshot leaves out."""

    def __init__(self, blobs: Blobs, listing: Listing, known: dict[bytes, str], left_out: set[bytes]) -> None:
        self.git = blobs.git("status-index")
        self.blobs = blobs
        self.listing = listing
        self.known = known
        self.left_out = left_out

    def tree(self) -> str | None:
        """Write the tree and return its id, or None if there is nothing to store."""
        parts: list[tuple[str, str]] = []
        number = 0
        for repository in self.listing.repositories:
            entries = list(self._entries(repository))
            if not repository.path:
                parts += [("root", make_tree(self.git, entries))] if entries else []
            elif b"\n" not in repository.path and (head := self._head(repository.worktree)):
                entries += [self._blob(b"path", repository.path), *self._commit(repository.worktree)]
                parts += [(str(number), make_tree(self.git, entries)), (f"{number}-head", head)]
                number += 1
        if not parts:
            return None
        lines = "".join(f"040000 tree {oid}\t{name}\0" for name, oid in parts)
        return self.git.run("mktree", "-z", stdin=lines.encode()).decode().strip()

    def _head(self, worktree: Worktree) -> str | None:
        """Return the tree of a nested repository's commit, or None if not all of it is here."""
        if worktree.object_format != self.blobs.object_format:
            return None
        if worktree.commit is None:
            return self.git.run("mktree", "-z").decode().strip()
        tree = f"{worktree.commit}^{{tree}}"
        if not self.git.succeeds("rev-list", "--objects", "--quiet", "--no-walk", tree):
            return None
        return self.git.run("rev-parse", tree).decode().strip()

    def _commit(self, worktree: Worktree) -> Iterator[Entry]:
        if worktree.commit:
            yield self._blob(b"commit", self.git.run("cat-file", "commit", worktree.commit))
        if worktree.branch:
            yield self._blob(b"branch", os.fsencode(worktree.branch))

    def _entries(self, repository: Inside) -> Iterator[Entry]:
        worktree, differing = repository.worktree, staged(repository.worktree)
        index = [entry for entry in repository.index if not entry.intended]
        changed = [entry for entry in index if not worktree.commit or entry.stage or entry.path in differing]
        removed = (differing - {entry.path for entry in index}) | {entry.path for entry in index if entry.stage}
        zero = b"0" * (64 if worktree.object_format == "sha256" else 40)
        changes = [b"0 %s\t%s" % (zero, path) for path in sorted(removed)]
        for entry in changed:
            stage = f" {entry.stage}" if entry.stage else ""
            changes.append(f"{entry.mode} {entry.id}{stage}\t".encode() + entry.path)
        merged = [entry for entry in index if not entry.stage]  # git can't flag an unmerged path
        skipped = [
            entry.path for entry in merged if entry.skipped or within(repository.path, entry.path) in self.left_out
        ]
        left = set(skipped)
        assumed = [entry.path for entry in merged if entry.assumed and entry.path not in left]
        assumed += self._unchanged(repository, {*assumed, *left})
        for name, lines in ((b"changes", changes), (b"assumed", assumed), (b"skipped", skipped)):
            if lines:
                yield self._blob(name, b"".join(line + b"\0" for line in lines))
        yield from self._contents(changed)
        yield from self._settings(repository)

    def _blob(self, path: bytes, content: bytes) -> Entry:
        return FILE, self.blobs.add(content), path

    def _contents(self, entries: list[Indexed]) -> Iterator[Entry]:
        """Yield the files that the index names, except those that a partial clone lacks."""
        blobs = [entry for entry in entries if entry.mode != GITLINK]
        asked = "".join(f"{entry.id}\n" for entry in blobs).encode()
        answers = self.git.run("cat-file", "--batch-check=%(objecttype)", stdin=asked).splitlines() if blobs else []
        for entry, answer in zip(blobs, answers, strict=True):
            if answer == b"blob":
                yield entry.mode, entry.id, b"files/%d/%s" % (entry.stage, entry.path)

    def _unchanged(self, repository: Inside, flagged: set[bytes]) -> Iterator[bytes]:
        """Yield filtered files that git finds unchanged although their bytes differ from the index. A job does not have
        the filter, and here it does not run: a file is unchanged if its status is what git recorded, or if the index
        has its pointer of Git LFS. The rest are those in another encoding, which git itself converts."""
        unknown: list[bytes] = []
        for entry in repository.index:
            if entry.path not in repository.filtered or entry.stage or entry.intended or entry.path in flagged:
                continue
            full = within(repository.path, entry.path)
            file = self.listing.files.get(full)
            if file is None or self.known.get(full) == entry.id:
                continue
            if as_recorded(entry, file.stat) or self._lfs_pointer(repository, entry.path, file) == entry.id:
                yield entry.path
            else:
                unknown.append(entry.path)
        if unknown:
            options = ("--name-only", "-z", "--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all")
            changed = set(repository.worktree.git().run("diff", *options).split(b"\0"))
            yield from (path for path in unknown if path not in changed)

    def _lfs_pointer(self, repository: Inside, path: bytes, file: ListedFile) -> str:
        """Return the blob that Git LFS would store for the file
        (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
        pieces, digest = read(os.path.join(os.fsencode(repository.worktree.root), path), file.stat), hashlib.sha256()
        next(pieces)  # git's own header
        for piece in pieces:
            digest.update(piece)
        text = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hexdigest()}\nsize {file.stat.st_size}\n"
        )
        return self.blobs.add(text.encode())

    def _settings(self, repository: Inside) -> Iterator[Entry]:
        worktree, settings = repository.worktree, dict(repository.worktree.settings)
        if worktree.commit and "core.abbrev" not in settings:
            length = len(worktree.git().run("rev-parse", "--short", worktree.commit).strip())
            if length != USUAL_ABBREVIATION:
                settings["core.abbrev"] = str(length)
        if (sparse := worktree.git_dir / "info/sparse-checkout").is_file():
            yield self._blob(b"git/info/sparse-checkout", sparse.read_bytes())
        if excludes := _rules(worktree.user_file("excludes", "ignore")) + _rules(worktree.common / "info/exclude"):
            yield self._blob(b"git/info/exclude", excludes)
        if rules := _rules(worktree.common / "info/attributes"):
            yield self._blob(b"git/info/attributes", rules)
        if rules := _rules(worktree.user_file("attributes")):
            yield self._blob(b"git/info/attributes-of-user", rules)
            file = os.fsdecode(within(repository.path, b".git/info/attributes-of-user"))
            settings["core.attributesfile"] = f"/workflow/{file}"
        if settings:
            yield self._blob(b"config", config(settings))


def config(settings: dict[str, str]) -> bytes:
    """Return settings in the format of a configuration file (git-config, "Syntax")."""
    lines: list[str] = []
    for key, value in settings.items():
        section, _, rest = key.partition(".")
        subsection, _, name = rest.rpartition(".")
        head = f'[{section} "{_escaped(subsection)}"]' if subsection else f"[{section}]"
        text = _escaped(value).replace("\n", "\\n").replace("\t", "\\t")
        lines.append(f'{head}\n\t{name} = "{text}"\n')
    return os.fsencode("".join(lines))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _rules(path: Path) -> bytes:
    """Return a file of rules, b"" if it is unreadable or has only comments."""
    try:
        content = path.read_bytes() if path.is_file() else b""
    except PermissionError:
        return b""
    lines: Iterable[bytes] = (line.strip() for line in content.splitlines())
    return content.rstrip(b"\n") + b"\n" if any(line and not line.startswith(b"#") for line in lines) else b""
