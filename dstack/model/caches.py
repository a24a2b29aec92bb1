"""Folders that a workflow keeps on its machine from one job to the next."""

from __future__ import annotations

import hashlib

from dstack.model.location import normal
from dstack.model.paths import CONTAINER_IO, CONTAINER_TREE

SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/proc", "/sys", "/dev")
"""Without these no container starts; and nothing may be mounted in the last three."""
KERNELS = ("/proc", "/sys", "/dev")


def cache_path(path: str) -> str:
    """The path in its shortest form."""
    return f"/{normal(path)}"


def cache_trouble(path: str) -> str | None:
    """Why the path can't be a cache's, as the end of a sentence; None if it can."""
    if not path.strip():
        return "is empty"
    if path.startswith("~"):
        return f"is '{path}': write the whole path in the container, such as /root{path[1:]}"
    if not path.startswith("/"):
        return f"is the relative path '{path}': name an absolute one in the container, such as /root/.cache/pip"
    if ".." in path.split("/"):
        return f"holds '..' in '{path}'"
    if any(ord(letter) < 32 or ord(letter) == 127 or letter in ',"' for letter in path):
        return "holds a comma, a quote or a control character, which Docker's mounts can't"
    short = cache_path(path)
    if short == "/":
        return "is '/': name a folder in the container"
    for taken, what in ((CONTAINER_TREE, "the project's files"), (CONTAINER_IO, "dstack's own files")):
        if f"{short}/".startswith(f"{taken}/"):
            return f"is '{path}': {taken} holds {what}"
    if short in SYSTEM or any(short.startswith(f"{folder}/") for folder in KERNELS):
        return f"is '{path}', which belongs to the system in the container"
    return None


def cache_name(path: str) -> str:
    """What names a cache's folder on a machine, below the repository's."""
    return hashlib.sha256(cache_path(path).encode(errors="surrogateescape")).hexdigest()[:16]
