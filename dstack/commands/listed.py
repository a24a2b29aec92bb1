"""The answer of `listing.sh.j2`. Names hold any byte, so each list is read by the names that stand before it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dstack.commands.command import Result
from dstack.errors import CommandError

SECTIONS = ("names", "stats", "hashes", "links", "long", "trouble")

_STAT = re.compile(rb"([0-9a-f]+) ([0-9]+) ")
_HASH = re.compile(rb"(\\?)([0-9a-f]{64}|[0-9a-f]{32}) [ *]")


@dataclass(frozen=True)
class Answer:
    """What a host said. Paths have bytes that are not UTF-8 as surrogate escapes.

    `project` and `paths` say what is where something was asked for: present, missing, link, special. `names` are
    all but folders and links; `stats` has mode and size, `hashes` the sha256 of those that could be read; `links`
    has targets. `long` are paths that are too long. `trouble` is what the host's programs complained about.
    """

    project: str | None
    paths: tuple[str, ...]
    names: tuple[str, ...]
    stats: dict[str, tuple[int, int]]
    hashes: dict[str, str]
    links: dict[str, str]
    long: tuple[str, ...]
    trouble: str


def parse(name: str, result: Result) -> Answer:
    """Read the answer. Raises CommandError for one that makes no sense."""
    try:
        return _parse(result.stdout)
    except (ValueError, IndexError) as error:
        raise CommandError(name, result.exit_status, f"the host's answer is not understood: {error}") from error


def _parse(data: bytes) -> Answer:
    project: str | None = None
    paths: list[str] = []
    sections: dict[str, bytes] = {}
    at = 0
    while not data.startswith(b"end=\n", at):
        end = data.index(b"\n", at)
        key, _, value = data[at:end].decode().partition("=")
        at = end + 1
        if key == "project":
            project = value
        elif key == "path":
            paths.append(value)
        elif key in SECTIONS:
            sections[key], at = data[at : at + int(value)], at + int(value)
        else:
            raise ValueError(f"{key[:100]!r} was not asked for")
    if sections and set(sections) != set(SECTIONS):
        raise ValueError("it lacks a list")
    names = _split(sections.get("names", b""))
    links = _split(sections.get("links", b""))
    return Answer(
        project,
        tuple(paths),
        tuple(map(_text, names)),
        dict(_stats(sections.get("stats", b""), names)),
        dict(_hashes(sections.get("hashes", b""), names)),
        {_text(path): _target(target) for path, target in zip(links[::2], links[1::2], strict=True)},
        tuple(map(_text, _split(sections.get("long", b"")))),
        sections.get("trouble", b"").decode(errors="replace").strip()[:1000],
    )


def hashes(data: bytes, names: list[bytes]) -> dict[str, str]:
    """The sums of named files by path, from what `md5sum`, `sha256sum` or `openssl dgst -r` printed about them in
    this order. Raises ValueError for what makes no sense."""
    return dict(_hashes(data, names))


def _stats(data: bytes, names: list[bytes]) -> Iterable[tuple[str, tuple[int, int]]]:
    """Lines `MODE SIZE NAME`, in the order of the names; some may be left out."""
    at = 0
    for name in names:
        found = _STAT.match(data, at)
        if found and data.startswith(name + b"\n", found.end()):
            yield _text(name), (int(found[1], 16), int(found[2]))
            at = found.end() + len(name) + 1
    _all_read(data, at)


def _hashes(data: bytes, names: list[bytes]) -> Iterable[tuple[str, str]]:
    """Lines `SHA256  NAME`, as sha256sum or `openssl dgst -r` write them; some names may be left out. GNU's begins
    those with a backslash whose name it escapes, busybox's and openssl's never escape one (or not all)."""
    at = 0
    for name in names:
        found = _HASH.match(data, at)
        if found is None:
            break
        written = _escaped(name, data, found.end()) if found[1] else name
        if data.startswith(written + b"\n", found.end()):
            yield _text(name), found[2].decode()
            at = found.end() + len(written) + 1
    _all_read(data, at)


def _escaped(name: bytes, data: bytes, at: int) -> bytes:
    """The name as the host's program escaped it: coreutils also escapes CR since 9.0, openssl only line ends."""
    lines = name.replace(b"\n", b"\\n")
    gnu = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return next((form for form in (gnu, gnu.replace(b"\r", b"\\r"), lines) if data.startswith(form + b"\n", at)), gnu)


def _all_read(data: bytes, at: int) -> None:
    if at != len(data):
        raise ValueError(f"{data[at : at + 100]!r} fits no name")


def _split(data: bytes) -> list[bytes]:
    if data and not data.endswith(b"\0"):
        raise ValueError("a list of names is cut")
    return data.split(b"\0")[:-1]


def _text(name: bytes) -> str:
    """A path without the leading `./`."""
    return _target(name.removeprefix(b"./"))


def _target(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
