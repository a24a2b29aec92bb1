"""The list of a job's artifacts. Written last: without a manifest, there are no artifacts."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate

import msgspec
from msgspec import Struct

from dstack.model.job.links import stays


class File(Struct, frozen=True, omit_defaults=True):
    """One file of an artifact. `path` is relative to the project's folder and uses '/'; bytes that are not UTF-8 become
    surrogate escapes. `size` is in bytes, `mode` has the permission bits, `sha256` is in hex. A symbolic link has its
    target in `link`, and an empty `sha256`. `etag` is the object store's checksum, if one holds the file."""

    path: str
    size: int
    mode: int
    sha256: str
    link: str | None = None
    etag: str | None = None


class Folder(Struct, frozen=True):
    """One folder of an artifact, empty or not. `mode` has the permission bits, setgid and the sticky bit."""

    path: str
    mode: int


PARTIAL = "running"
"""The status of artifacts stored while their job was running."""


class Manifest(Struct, frozen=True):
    """The artifacts of a job. `status` is the job's final status: the cache uses only `done` ones. `attempt` and
    `exit_code` are of the attempt that ended so. `folders` are those at and below the artifacts' paths. Earlier
    versions did not record these three."""

    job: str
    run: str
    workflow: str
    status: str
    files: tuple[File, ...]
    attempt: int = 1
    exit_code: int | None = None
    folders: tuple[Folder, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    def ends(self, attempt: int) -> bool:
        """Whether it says how a job ended whose record stands at this attempt."""
        return self.status == "done" or (self.status != PARTIAL and self.attempt >= attempt)


MANIFEST = "manifest.json"
"""The store's own file next to a job's artifacts."""

LONGEST = 3500
"""Maximum bytes of a path. Leaves room below Linux's limit of 4096 for a folder of the store or host in front."""


def shown(path: str) -> str:
    """Return the path for a message: quoted, on one line, shortened if very long."""
    return repr(path if len(path) <= 300 else f"{path[:200]}...{path[-60:]}")


def normal(path: str) -> str:
    """Return an artifact's path without trailing slash, `.` and redundant `..`; "." for the whole folder."""
    return posixpath.normpath(path) if path else ""


def objection(path: str) -> str | None:
    """Why an artifact can't have this path, or None if it can. "." is the whole folder."""
    try:
        length = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        length = 0
    troubles = {
        "is not a path": not length or "\0" in path,
        "is outside the project's folder": path.startswith("/") or ".." in path.split("/"),
        "is not in its shortest form": path != posixpath.normpath(path),
        f"is longer than {LONGEST} bytes": length > LONGEST,
        "is reserved for dstack's own list of files; give the artifact another name": f"{path}/".startswith(
            f"{MANIFEST}/"
        ),
    }
    return next((f"{shown(path)} {words}" for words, found in troubles.items() if found), None)


def problem(files: Iterable[File], folders: Iterable[Folder] = ()) -> str | None:
    """Why these can't be in one folder, or None: an invalid or repeated path, a file that is also a folder, or a link
    that leaves the folder."""
    by_path: dict[str, File] = {}
    for file in files:
        if why := objection(file.path) or ("'.' is not a file" if file.path == "." else None):
            return why
        if file.path in by_path:
            return f"{shown(file.path)} is listed twice"
        by_path[file.path] = file
    links = {file.path: file.link for file in by_path.values() if file.link is not None}
    for path in by_path:
        if (above := occupied_parent(path, by_path)) is not None:
            return f"{shown(above)} is both a file and the folder of {shown(path)}"
        if path in links and not stays(path, links):
            return f"{shown(path)} is a link to outside the project's folder"
    for folder in folders:
        if why := objection(folder.path):
            return why
        if (taken := occupied(folder.path, by_path)) is not None:
            return f"{shown(taken)} is both a file and a folder"
    return None


def occupied_parent(path: str, files: Container[str]) -> str | None:
    """Return the parent folder of `path` that is also a file in `files`, or None."""
    parents = accumulate(path.split("/")[:-1], "{}/{}".format)
    return next((parent for parent in parents if parent in files), None)


def occupied(path: str, files: Container[str]) -> str | None:
    """Return the path itself or the parent folder that is also a file in `files`, or None."""
    return path if path in files else occupied_parent(path, files)


def folders_of(manifests: Sequence[Manifest]) -> tuple[Folder, ...]:
    """Return the folders that these artifacts have in one tree. For a path that several list, the first one's mode
    counts; a file of any of them wins over a folder."""
    files = {file.path for manifest in manifests for file in manifest.files}
    found: dict[str, Folder] = {}
    for manifest in manifests:
        for folder in manifest.folders:
            found.setdefault(folder.path, folder)
    return tuple(folder for path, folder in sorted(found.items()) if occupied(path, files) is None)


def conflicts(manifests: Sequence[Manifest]) -> str | None:
    """Why the artifacts of these jobs can't be in one folder, or None: two jobs give one path different bytes."""
    owner: dict[str, tuple[File, str]] = {}
    for manifest in manifests:
        for file in manifest.files:
            mine = (file, manifest.workflow)
            other, theirs = owner.setdefault(file.path, mine)
            if (other.sha256, other.link) != (file.sha256, file.link):
                return f"'{theirs}' and '{manifest.workflow}' both produce {shown(file.path)}, with different content"
    for path, (_, workflow) in owner.items():
        if (above := occupied_parent(path, owner)) is not None:
            return f"'{owner[above][1]}' produces the file {shown(above)}, and '{workflow}' a folder with that name"
    for manifest in manifests:
        for folder in manifest.folders:
            if (taken := occupied(folder.path, owner)) is not None:
                words = f"'{owner[taken][1]}' produces the file {shown(taken)}, and '{manifest.workflow}' a folder"
                return f"{words} with that name"
    return None


def encode(manifest: Manifest) -> bytes:
    """Return the text. msgspec's own encoder refuses surrogate escapes, which stand for bytes that are not UTF-8."""
    head = msgspec.to_builtins(manifest)
    lists = "".join(f', "{name}": {_lines(head.pop(name))}' for name in ("folders", "files"))
    return f"{json.dumps(head)[:-1]}{lists}}}\n".encode("ascii")


def _lines(entries: Iterable[object]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, entries)) + "\n]"


def decode(document: bytes) -> Manifest:
    """Return the manifest. Raises ValueError if the text is not a manifest, or contains paths that none may have."""
    manifest = msgspec.convert(json.loads(document), Manifest)
    if why := problem(manifest.files, manifest.folders):
        raise ValueError(why)
    return manifest
