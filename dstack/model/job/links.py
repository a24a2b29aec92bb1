"""Where symbolic links in an artifact lead."""

from __future__ import annotations

import posixpath
from collections.abc import Container, Mapping

HOPS = 40
"""How many links the kernel follows in one path (path_resolution(7))."""


def stays(path: str, links: Mapping[str, str], top: str = ".") -> bool:
    """Whether the link at `path`, followed through other `links`, never leaves the folder `top`."""
    root = [] if top == "." else top.split("/")
    *here, name = path.split("/")
    todo, hops = [name], 0
    while todo:
        part = todo.pop()
        if part == ".." and not here:
            return False
        if part == "..":
            here.pop()
        elif part not in ("", "."):
            here.append(part)
        if here[: len(root)] != root:
            return False
        target = links.get("/".join(here)) if part not in ("", ".", "..") else None
        if target is not None:
            hops += 1
            if target.startswith("/") or hops > HOPS:
                return False
            here.pop()
            todo += reversed(target.split("/"))
    return True


def relative(path: str, target: str, tree: str, folders: Container[str]) -> str | None:
    """Return the absolute target of the link at `path` as a relative one, or None if it leaves the folder `tree`, to
    which `path` is relative. `folders` are paths below it that are known to be folders and not links: only there is it
    certain where `..` leads."""
    above = tree.strip("/").split("/")
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if not target.startswith("/") or parts[: len(above)] != above:
        return None
    here: list[str] = []
    for part in parts[len(above) :]:
        if part != "..":
            here.append(part)
        elif "/".join(here) in folders:
            here.pop()
        else:
            return None
    return posixpath.relpath("/".join(here) or ".", posixpath.dirname(path) or ".")
