"""Prints stored files: as a tree with sizes for people, or one file per line for scripts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dstack.cli.output import show, words
from dstack.cli.output.screen import terminal
from dstack.model.api.artifacts import ArtifactView, FolderView
from dstack.model.text.units import size_words

SHOWN = 20
"""How many entries of a folder are shown without --all."""
MARKS = (("├── ", "│   "), ("└── ", "    "))
PLAIN_MARKS = (("|-- ", "|   "), ("`-- ", "    "))
"""For terminals that can only show ASCII."""

_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


@dataclass
class Node:
    """A file, or a folder with its contents. `size` in bytes and `files` count everything below."""

    link: str | None = None
    size: int = 0
    files: int = 0
    folder: bool = False
    inside: dict[str, Node] = field(default_factory=dict)


def print_files(views: Sequence[ArtifactView], folders: Sequence[FolderView] = (), *, everything: bool) -> None:
    """Print stored files on stdout: a tree with their folders on a terminal, otherwise one file per line."""
    if not terminal(sys.stdout):
        for text in lines(views):
            show.line(text)
        return
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    shown = tree(views, folders, everything=everything, ascii_only=ascii_only)
    width = max(len(size) for size, _ in shown)
    for size, text in shown:
        show.line(f"{size.rjust(width)}  {show.clean(text)}".replace("\n", " "))


def tree(
    views: Sequence[ArtifactView],
    folders: Sequence[FolderView] = (),
    *,
    everything: bool,
    ascii_only: bool = False,
) -> list[tuple[str, str]]:
    """Return the size and name of each line, with the workflows at the top. Unless `everything` is set, a large folder
    shows its first entries by name and counts the rest."""
    top = Node()
    for view in views:
        _add(top, [view.workflow, *view.path.split("/")], view)
    for folder in folders:
        _add_folder(top, [folder.workflow, *folder.path.split("/")])
    lines: list[tuple[str, str]] = []
    for name, node in top.inside.items():
        lines.append((size_words(node.size), f"{name}: {words.count(node.files, 'file')}"))
        most = SHOWN if not everything else len(views) + len(folders) + 1
        lines += _below(node, "", most, PLAIN_MARKS if ascii_only else MARKS)
    return lines


def lines(views: Sequence[ArtifactView]) -> Iterator[str]:
    """Yield `WORKFLOW<tab>PATH<tab>BYTES` for each file, and a link's target as fourth column. Characters that would
    break a line are escaped: `\\n`, `\\t`, `\\\\`."""
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


def _add_folder(top: Node, parts: Sequence[str]) -> None:
    node = top
    for part in parts:
        node = node.inside.setdefault(part, Node())
    node.folder = True


def _below(folder: Node, indent: str, most: int, marks: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, str]]:
    entries = sorted(folder.inside.items(), key=lambda entry: _natural(entry[0]))
    shown = entries if len(entries) <= most else entries[: most - 1]
    rest = [node for _, node in entries[len(shown) :]]
    for number, (name, node) in enumerate(shown, 1):
        mark, deeper = marks[number == len(entries)]
        slash = "/" if node.inside or node.folder else "" if node.link is None else f" -> {node.link}"
        yield size_words(node.size), f"{indent}{mark}{name}{slash}"
        yield from _below(node, indent + deeper, most, marks)
    if rest:
        size, count = sum(node.size for node in rest), sum(node.files for node in rest)
        yield size_words(size), f"{indent}{marks[1][0]}and {words.count(count, 'file')} more (--all shows them)"


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that compares numbers by value: step-9 comes before step-10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]+)", name)]


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\x{ord(found[0]):02x}"
