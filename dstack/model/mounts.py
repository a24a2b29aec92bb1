"""Folders of a machine that a job sees: `SOURCE:TARGET[:ro|rw]`, as for `docker run --volume`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

OWN = ("/workflow", "/.dstack")
"""What dstack itself mounts into a job."""


class Mount(Struct, frozen=True):
    """`source` on the machine, `target` in the container: absolute, in their shortest form."""

    source: str
    target: str
    writable: bool = True


def parse(text: str) -> Mount:
    """Read a mount, its variables replaced. Raises ValueError with what is wrong as the end of a sentence."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise ValueError(f"must be SOURCE:TARGET, SOURCE:TARGET:ro or SOURCE:TARGET:rw, not '{text}'")
    source, target = (_absolute(path, text) for path in parts[:2])
    if target == "/":
        raise ValueError(f"would hide the image's own files: '{text}'")
    for own in OWN:
        if inside(target, own):
            raise ValueError(f"has a target in {own}, which is dstack's own: '{text}'")
    return Mount(source, target, parts[-1] != "ro")


def folder(text: str) -> str:
    """A folder that a machine's owner lets jobs mount, in its shortest form. Raises ValueError, as `parse` does."""
    path = _absolute(text, text)
    if path == "/":
        raise ValueError("can't be /: a job that mounts that is root on the machine")
    return path


def inside(path: str, folder: str) -> bool:
    """Whether the path is the folder, or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def allowed(source: str, folders: Iterable[str]) -> bool:
    """Whether the source lies in one of these folders."""
    return any(inside(source, each) for each in folders)


def outermost(folders: Sequence[str]) -> tuple[str, ...]:
    """Those that lie in no other. A job that may write in one could make another one in it a link to anywhere."""
    return tuple(each for each in folders if not allowed(each, [other for other in folders if other != each]))


def twice(targets: Iterable[str]) -> str | None:
    """A target that is there twice; None if all differ."""
    seen: set[str] = set()
    for target in targets:
        if target in seen:
            return target
        seen.add(target)
    return None


def _absolute(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"needs absolute paths: '{text}'")
    if ".." in path.split("/"):
        raise ValueError(f"holds '..' in '{text}'")
    if any(letter in ',"\\' or not letter.isprintable() for letter in path):
        raise ValueError(f"holds a comma, a quote, a backslash or a control character: '{text}'")
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
