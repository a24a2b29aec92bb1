"""Stored files as people and scripts see them: a tree with sizes, or a line a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dstack.cli import words
from dstack.model.api.artifacts import ArtifactView

SHOWN = 20
"""Entries of a folder that are shown unless all are asked for."""
MARKS = (("├── ", "│   "), ("└── ", "    "))
PLAIN_MARKS = (("|-- ", "|   "), ("`-- ", "    "))
"""For terminals that have ASCII alone."""

_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


@dataclass
class Node:
    """A file, or a folder with what is in it. `size` in bytes and `files` count all below."""

    link: str | None = None
    size: int = 0
    files: int = 0
    inside: dict[str, Node] = field(default_factory=dict)


def tree(views: Sequence[ArtifactView], *, everything: bool, ascii_only: bool = False) -> list[tuple[str, str]]:
    """Size and name of each line, the workflows at the top. A folder of many entries shows the first of them by
    name, and counts the rest, unless `everything` is shown."""
    top = Node()
    for view in views:
        _add(top, [view.workflow, *view.path.split("/")], view)
    lines: list[tuple[str, str]] = []
    for name, node in top.inside.items():
        lines.append((words.size(node.size), f"{name}: {_count(node.files)}"))
        lines += _below(node, "", SHOWN if not everything else len(views) + 1, PLAIN_MARKS if ascii_only else MARKS)
    return lines


def lines(views: Sequence[ArtifactView]) -> Iterator[str]:
    """`WORKFLOW<tab>PATH<tab>BYTES` of each file, of a link its target as a fourth column. What would break a line
    is escaped: `\\n`, `\\t`, `\\\\`."""
    for view in views:
        columns = [view.workflow, view.path, str(view.size), *([view.link] if view.link is not None else [])]
        yield "\t".join(_ODD.sub(_escaped, column) for column in columns)


def _add(top: Node, parts: Sequence[str], view: ArtifactView) -> None:
    node = top
    for part in parts:
        node = node.inside.setdefault(part, Node())
        node.size += view.size
        node.files += 1
    node.link = view.link


def _below(folder: Node, indent: str, most: int, marks: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    entries = sorted(folder.inside.items(), key=lambda entry: _natural(entry[0]))
    shown = entries if len(entries) <= most else entries[: most - 1]
    rest = [node for _, node in entries[len(shown) :]]
    for number, (name, node) in enumerate(shown, 1):
        mark, deeper = marks[number == len(entries)]
        slash = "/" if node.inside else "" if node.link is None else f" -> {node.link}"
        yield words.size(node.size), f"{indent}{mark}{name}{slash}"
        yield from _below(node, indent + deeper, most, marks)
    if rest:
        size, count = sum(node.size for node in rest), sum(node.files for node in rest)
        yield words.size(size), f"{indent}{marks[1][0]}and {_count(count)} more (--all shows them)"


def _count(files: int) -> str:
    return "1 file" if files == 1 else f"{files} files"


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers by their value: step-9 comes before step-10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]+)", name)]


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\x{ord(found[0]):02x}"
