"""Which paths and links a job's artifacts may hold: for what a host lists, and for what a store is given."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping

from dstack.model.manifest import File, Manifest

MANIFEST = "manifest.json"
"""The store's own file beside a job's artifacts."""

LONGEST = 3500
"""Bytes of a path: what a folder of the store or of a host may be put in front of, below Linux's limit of 4096."""

HOPS = 40
"""How many links the kernel follows on one path (path_resolution(7))."""


def shown(path: str) -> str:
    """A path as messages show it: in one line, in quotes, cut if it is very long."""
    return repr(path if len(path) <= 300 else f"{path[:200]}...{path[-60:]}")


def normal(path: str) -> str:
    """An artifact's path without trailing slash, `.` and needless `..`; "." for the whole folder."""
    return posixpath.normpath(path) if path else ""


def objection(path: str) -> str | None:
    """Why no artifact may have this path, or None if it may. "." stands for the whole folder."""
    if not path or "\0" in path:
        return f"{shown(path)} is not a path"
    if path.startswith("/") or ".." in path.split("/"):
        return f"{shown(path)} leaves the project's folder"
    if path != posixpath.normpath(path):
        return f"{shown(path)} is not written plainly"
    try:
        length = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return f"{shown(path)} is not a path"
    if length > LONGEST:
        return f"{shown(path)} is longer than {LONGEST} bytes"
    if path.split("/", 1)[0] == MANIFEST:
        return f"{shown(path)} is the name of the store's own list of files; write the artifact to another name"
    return None


def stays(path: str, links: Mapping[str, str], top: str = ".") -> bool:
    """Whether the link at `path`, followed through the other `links`, stays in the folder `top` all the way."""
    root = [] if top == "." else top.split("/")
    here = path.split("/")[:-1]
    todo = [links[path]]
    hops = 1
    while todo:
        target = todo.pop()
        if target.startswith("/") or hops > HOPS:
            return False
        parts = target.split("/")
        for at, part in enumerate(parts):
            if part == "..":
                if not here:
                    return False
                here.pop()
            elif part not in ("", "."):
                here.append(part)
            if here[: len(root)] != root:
                return False
            followed = links.get("/".join(here)) if part not in ("", ".", "..") else None
            if followed is not None:
                here.pop()
                hops += 1
                todo += ["/".join(parts[at + 1 :]).lstrip("/"), followed]
                break
    return True


def problem(files: Iterable[File]) -> str | None:
    """Why these files can't lie in one folder, or None: odd paths, one path twice, a file that is also a folder,
    links that leave the folder."""
    found: dict[str, File] = {}
    for file in files:
        if (why := objection(file.path)) or (why := "'.' is not a file" if file.path == "." else None):
            return why
        if file.path in found:
            return f"{shown(file.path)} is there twice"
        found[file.path] = file
    links = {file.path: file.link for file in found.values() if file.link is not None}
    for path in found:
        if (above := occupied_parent(path, found)) is not None:
            return f"{shown(above)} is both a file and the folder of {shown(path)}"
        if path in links and not stays(path, links):
            return f"{shown(path)} is a link that leaves the project's folder"
    return None


def occupied_parent(path: str, files: Mapping[str, object]) -> str | None:
    """The folder above `path` whose name is that of a file, if there is one."""
    at = path.find("/")
    while at >= 0:
        if path[:at] in files:
            return path[:at]
        at = path.find("/", at + 1)
    return None


def conflicts(manifests: Iterable[Manifest]) -> str | None:
    """Why the artifacts of these jobs can't lie in one folder, or None: two give one path different bytes."""
    owner: dict[str, tuple[File, str]] = {}
    for manifest in manifests:
        for file in manifest.files:
            mine = (file, manifest.workflow)
            other, theirs = owner.setdefault(file.path, mine)
            if (other.sha256, other.link) != (file.sha256, file.link):
                return f"'{theirs}' and '{manifest.workflow}' both make {shown(file.path)}, with different content"
    for path, (_, workflow) in owner.items():
        if (above := occupied_parent(path, owner)) is not None:
            return f"'{owner[above][1]}' makes the file {shown(above)}, and '{workflow}' a folder of that name"
    return None
