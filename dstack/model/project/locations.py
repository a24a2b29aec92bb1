"""Paths that a workflow names inside the project's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

from dstack.model.paths import CONTAINER_IO, CONTAINER_TREE


def normal(path: str) -> str:
    """Return the path without `./` and without doubled or trailing slashes; "" for the folder itself."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def trouble(path: str) -> str | None:
    """Why the path is not valid inside the project's folder, as the end of a sentence; None if it is."""
    parts = normal(path).split("/")
    if not path.strip():
        return "is empty; write a path inside the project's folder"
    if path.startswith("/"):
        return f"is the absolute path '{path}'; write a path inside the project's folder"
    if ".." in parts:
        return f"contains '..': '{path}'; write a path inside the project's folder"
    if ".git" in parts:
        return f"is '{path}', but .git is not part of the project's files; remove this entry"
    if parts[0] == ".dstack":
        return f"is '{path}', but .dstack is for dstack's own files; remove this entry"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "contains a control character; remove it"
    return None


def artifact_trouble(path: str) -> str | None:
    """Why the path is not valid for an artifact, as the end of a sentence; None if it is."""
    if not normal(path) and path.strip() and not path.startswith("/"):
        return "is the whole project; name a file or folder in it"
    return trouble(path)


def overlap(paths: Sequence[str]) -> tuple[int, int] | None:
    """Return the indexes of two paths that are equal or nested, the later one first; None if there are none. A path
    that names no folder counts as apart."""
    listed: dict[str, int] = {}
    above: dict[str, int] = {}
    for later, path in enumerate(map(normal, paths)):
        outer = list(accumulate(path.split("/"), "{}/{}".format)) if path else []
        found = [listed[folder] for folder in outer if folder in listed]
        if path in above:
            found.append(above[path])
        if found:
            return later, min(found)
        if path:
            listed[path] = later
        for folder in outer:
            above.setdefault(folder, later)
    return None


def pattern_trouble(path: str) -> str | None:
    """Why an artifact, as written, is a pattern, as the end of a sentence; None if it is not."""
    if "*" in path or "?" in path:
        return f"is the pattern '{path}'; name the folder that contains the files"
    return None


SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/proc", "/sys", "/dev")
"""A container can't start without these."""
KERNELS = ("/proc", "/sys", "/dev")
"""Nothing may be mounted below these, either."""


def cache_path(path: str) -> str:
    return f"/{normal(path)}"


def cache_trouble(path: str) -> str | None:
    """Why the path is not valid for a cache, as the end of a sentence; None if it is."""
    if not path.strip():
        return "is empty; write an absolute path in the container, such as /root/.cache/pip"
    if path.startswith("~"):
        return f"is '{path}'; write the full path in the container, such as /root{path[1:]}"
    if not path.startswith("/"):
        return f"is the relative path '{path}'; write an absolute path in the container, such as /root/.cache/pip"
    if ".." in path.split("/"):
        return f"contains '..': '{path}'; write the path without it"
    if any(ord(letter) < 32 or ord(letter) == 127 or letter in ',"' for letter in path):
        return "contains a comma, a quote or a control character, which Docker does not allow in mounts; remove it"
    short = cache_path(path)
    if short == "/":
        return "is '/'; name a folder in the container"
    for taken, what in ((CONTAINER_TREE, "the project's files"), (CONTAINER_IO, "dstack's own files")):
        if f"{short}/".startswith(f"{taken}/"):
            return f"is '{path}', but {taken} is for {what}; choose another folder"
    if short in SYSTEM or any(short.startswith(f"{folder}/") for folder in KERNELS):
        return f"is '{path}', which is a system folder in the container; choose another folder"
    return None


def cache_name(path: str) -> str:
    """Return the name of a cache's folder on the runner, below the repository's folder."""
    return hashlib.sha256(cache_path(path).encode(errors="surrogateescape")).hexdigest()[:16]
