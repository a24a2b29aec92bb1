"""Parses the answer of `listing.sh.j2`. Names may contain any byte, so each list is parsed with the names before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dstack.model.text.untrusted import clean, whole

SECTIONS = ("names", "stats", "hashes", "links", "folders", "modes", "long", "trouble")

_STAT = re.compile(rb"()([0-9a-f]{1,8}) ([0-9]{1,18}) ")
_FOLDER_END = b"/./\n"
"""What the host writes behind each folder: no path contains it."""
_HASH = re.compile(rb"(\\?)([0-9a-f]{64}|[0-9a-f]{32}) [ *]")


@dataclass(frozen=True)
class Answer:
    """A host's answer. In paths, bytes that are not UTF-8 are surrogate escapes. `project` and `paths` are the states
    of the requested paths: present, missing, link or special. `names` are all files except folders and links; `stats`
    has their mode and size, `hashes` the sha256 of those that could be read; `links` maps links to their targets.
    `folders` maps folders to their permissions where they are listed, and `modes`, relative to the whole tree, to those
    that the job left. `long` are paths that are too long. `trouble` holds error messages."""

    project: str | None
    paths: tuple[str, ...]
    names: tuple[str, ...]
    stats: dict[str, tuple[int, int]]
    hashes: dict[str, str]
    links: dict[str, str]
    folders: dict[str, int]
    modes: dict[str, int]
    long: tuple[str, ...]
    trouble: str


def parse(data: bytes) -> Answer:
    """Parse the answer. Raises ValueError if it is malformed."""
    project: str | None = None
    paths: list[str] = []
    sections: dict[str, bytes] = {}
    at = 0
    while not data.startswith(b"end=\n", at):
        end = data.index(b"\n", at)
        key, _, value = clean(data[at:end]).partition("=")
        at = end + 1
        if key == "project":
            project = value
        elif key == "path":
            paths.append(value)
        elif key in SECTIONS:
            sections[key], at = data[at : at + whole(value)], at + whole(value)
        else:
            raise ValueError(f"unexpected key {key[:100]!r}")
    if sections and set(sections) != set(SECTIONS):
        raise ValueError("a list is missing")
    names = _split(sections.get("names", b""))
    links = _split(sections.get("links", b""))
    return Answer(
        project,
        tuple(paths),
        tuple(map(_text, names)),
        {path: (int(found[2], 16), int(found[3])) for path, found in _lines(_STAT, sections.get("stats", b""), names)},
        {path: found[2].decode() for path, found in _lines(_HASH, sections.get("hashes", b""), names)},
        {_text(path): _target(target) for path, target in zip(links[::2], links[1::2], strict=True)},
        _folders(sections.get("folders", b"")),
        _folders(sections.get("modes", b"")),
        tuple(map(_text, _split(sections.get("long", b"")))),
        clean(sections.get("trouble", b"").strip(), 1000),
    )


def hashes(data: bytes, paths: Iterable[str]) -> dict[str, str]:
    """Return checksums by path, from the output of `md5sum`, `sha256sum` or `openssl dgst -r` for these paths in this
    order. Raises ValueError if it is malformed."""
    names = [path.encode("utf-8", "surrogateescape") for path in paths]
    return {path: found[2].decode() for path, found in _lines(_HASH, data, names)}


def _lines(head: re.Pattern[bytes], data: bytes, names: Iterable[bytes]) -> Iterator[tuple[str, re.Match[bytes]]]:
    """Yield names and what precedes them on their lines, in the order of the names; some may be missing. GNU's programs
    start a line with a backslash if they escape the name; busybox and openssl escape no names, or only some."""
    at = 0
    for name in names:
        found = head.match(data, at)
        if found is None:
            break
        written = _escaped(name, data, found.end()) if found[1] else name
        if data.startswith(written + b"\n", found.end()):
            yield _text(name), found
            at = found.end() + len(written) + 1
    if at != len(data):
        raise ValueError(f"{data[at : at + 100]!r} does not match any name")


def _escaped(name: bytes, data: bytes, at: int) -> bytes:
    """Return the name as the host's program escaped it: coreutils since 9.0 escapes CR, too, openssl only newlines."""
    lines = name.replace(b"\n", b"\\n")
    gnu = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return next((form for form in (gnu, gnu.replace(b"\r", b"\\r"), lines) if data.startswith(form + b"\n", at)), gnu)


def _folders(data: bytes) -> dict[str, int]:
    """Return folders and their permissions, from `stat`'s lines. Of several lines about one, the first counts."""
    found: dict[str, int] = {}
    *entries, rest = data.split(_FOLDER_END)
    for entry in entries:
        mode, space, name = entry.partition(b" ")
        if not space or not re.fullmatch(rb"[0-7]{1,5}", mode):
            raise ValueError(f"{entry[:100]!r} is not a folder and its mode")
        found.setdefault(_text(name), int(mode, 8))
    if rest:
        raise ValueError("a list of folders is truncated")
    return found


def _split(data: bytes) -> list[bytes]:
    if data and not data.endswith(b"\0"):
        raise ValueError("a list of names is truncated")
    return data.split(b"\0")[:-1]


def _text(name: bytes) -> str:
    """Decode a path, without its leading `./`."""
    return _target(name.removeprefix(b"./"))


def _target(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
