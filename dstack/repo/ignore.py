"""`.dstackignore`: what a snapshot leaves out beyond what git ignores, tracked files too. Rules as in gitignore."""

from __future__ import annotations

from pathlib import Path

from dstack.repo.git import Git
from dstack.repo.listing import Listing
from dstack.repo.trees import EMPTY_BLOB

NAME = ".dstackignore"


def leave_out(root: Path, listing: Listing, scratch: Path, object_format: str) -> set[bytes]:
    """Take what the rules name out of the listing, and return it. git itself matches: every path stands in an index
    beside the user's, and is asked for by the files of rules in its folders."""
    name = NAME.encode()
    if not (root / NAME).is_file() and not any(path.endswith(b"/" + name) for path in listing.files):
        return set()
    git = Git.within(scratch, GIT_WORK_TREE=str(root), GIT_INDEX_FILE=str(scratch / "ignore-index"))
    git.folder = root
    entry = b"100644 " + EMPTY_BLOB[object_format].encode() + b"\t"
    paths = [*listing.files, *listing.submodules]
    git.run("update-index", "-z", "--index-info", stdin=b"".join(entry + path + b"\0" for path in paths))
    named = git.run("ls-files", "--cached", "--ignored", f"--exclude-per-directory={NAME}", "-z")
    left = set(named.split(b"\0")) - {b""}
    listing.files = {path: found for path, found in listing.files.items() if path not in left}
    listing.submodules = {path: commit for path, commit in listing.submodules.items() if path not in left}
    for repository in list(listing.repositories):
        inside = repository.path + b"/"
        if repository.path and not any(path.startswith(inside) for path in listing.files):
            listing.repositories.remove(repository)
            left.add(repository.path)
    return left
