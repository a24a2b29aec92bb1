"""Folders of the runner that a job sees: `SOURCE:TARGET[:ro|rw]`, as for `docker run --volume`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

OWN = ("/workflow", "/.dstack")
"""Where dstack itself mounts folders into a job."""


class Mount(Struct, frozen=True):
    """`source` on the runner and `target` in the container: absolute paths in their shortest form."""

    source: str
    target: str
    writable: bool = True


def parse(text: str) -> Mount:
    """Parse a mount, its variables already replaced. Raises ValueError with the end of an error sentence."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise ValueError(f"must be SOURCE:TARGET, SOURCE:TARGET:ro or SOURCE:TARGET:rw, not '{text}'")
    source, target = (_absolute(path, text) for path in parts[:2])
    if target == "/":
        raise ValueError(f"would hide the image's own files: '{text}'; mount to another folder")
    for own in OWN:
        if inside(target, own):
            raise ValueError(f"has a target in {own}, which dstack uses itself: '{text}'; mount to another folder")
    return Mount(source, target, parts[-1] != "ro")


def trouble(text: str) -> str | None:
    """Why `parse` refuses the text, as the end of an error sentence; None if it does not."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


def folder(text: str) -> str:
    """Return the shortest form of a folder that jobs may mount. Raises ValueError, as `parse` does."""
    path = _absolute(text, text)
    if path == "/":
        raise ValueError("can't be /: any job could then become root on the machine; name a folder")
    return path


def inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def allowed(source: str, folders: Iterable[str]) -> bool:
    return any(inside(source, each) for each in folders)


def outermost(folders: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that are not inside another one. A job that can write to a folder could replace a nested one
    with a link to anywhere."""
    return tuple(each for each in folders if not allowed(each, [other for other in folders if other != each]))


def twice(targets: Iterable[str]) -> str | None:
    """Return a target that occurs twice; None if all differ."""
    return next((target for target, count in Counter(targets).items() if count > 1), None)


def _absolute(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"has a path that is not absolute: '{text}'; start it with /")
    if ".." in path.split("/"):
        raise ValueError(f"contains '..': '{text}'; write the path without it")
    if any(letter in ',"\\' or not letter.isprintable() for letter in path):
        raise ValueError(f"contains a comma, a quote, a backslash or a control character; remove it from '{text}'")
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
