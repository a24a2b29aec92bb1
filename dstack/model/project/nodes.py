"""YAML as nodes: every value keeps its line and its text as written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml
from msgspec import Struct
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from dstack.errors import ProjectError

LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NULL = "tag:yaml.org,2002:null"
MERGE = "tag:yaml.org,2002:merge"

# Characters that PyYAML refuses. Found here first, because PyYAML reports a position instead of a line.
FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

LARGEST = 2 * 10**6
"""Characters of a file."""
MOST_VALUES = 300_000
"""Values of a file, those that its aliases repeat included. A long text counts as several."""
MOST_PROBLEMS = 100

Path = tuple[str | int, ...]
"""The keys and list indexes (from 0) that lead to a value."""


class SourceFile(Struct, frozen=True):
    """A project file. `path` is what messages call it, relative to the project's folder."""

    path: str
    text: str


class FieldPath(Struct, frozen=True):
    """Where a value is. In messages: `trail`, the steps from `owner`, the named thing around it."""

    path: Path = ()
    owner: str = ""
    trail: Path = ()

    def __truediv__(self, step: str | int) -> FieldPath:
        return FieldPath((*self.path, step), self.owner, (*self.trail, step))

    def named(self, owner: str) -> FieldPath:
        """The same place, called `owner` in messages."""
        return FieldPath(self.path, owner)

    def __str__(self) -> str:
        if not self.trail:
            return self.owner or "the file"
        last = self.trail[-1]
        if isinstance(last, int):
            return f"entry {last + 1} of {FieldPath((), self.owner, self.trail[:-1])}"
        start = max((at + 1 for at, step in enumerate(self.trail) if isinstance(step, int)), default=0)
        keys = ".".join(str(step) for step in self.trail[start:])
        outer = FieldPath((), self.owner, self.trail[:start])
        return f"'{keys}' in {outer}" if start or self.owner else f"'{keys}'"


class Report:
    """The problems found in one file. `lines` has the line of every value read: that of its key or list entry."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: dict[Path, int] = {(): 1}
        self._problems: dict[tuple[int, str], None] = {}
        self._values = 0

    def read(self, node: Node) -> None:
        """Count a value. Raises ProjectError if there are too many."""
        self._values += 1 + len(node.value) // 20
        if self._values > MOST_VALUES:
            what = f"the file has more than {MOST_VALUES:,} values, and those that aliases repeat count, too"
            raise ProjectError([*self.problems, f"{self.path}:{line(node)}: {what}"])

    def add(self, at: int | FieldPath, text: str) -> None:
        """Add a problem at a line, counted from 1, or a value. A problem repeated through a YAML alias is kept once.
        Raises ProjectError if there are too many."""
        self._problems[at if isinstance(at, int) else self.lines[at.path], text] = None
        if len(self._problems) == MOST_PROBLEMS:
            raise ProjectError([*self.problems, f"{self.path}: these are the first {MOST_PROBLEMS} problems"])

    def refuse(self, where: FieldPath, trouble: str | None) -> None:
        """Add what is wrong with a value, if anything, in words that follow its name."""
        if trouble:
            self.add(where, f"{where} {trouble}")

    def __bool__(self) -> bool:
        return bool(self._problems)

    @property
    def problems(self) -> list[str]:
        """The problems as `path:LINE: what is wrong`, sorted by line."""
        return [f"{self.path}:{line}: {text}" for line, text in sorted(self._problems, key=lambda problem: problem[0])]


def line(node: Node) -> int:
    """The line where the node starts, counted from 1."""
    return int(node.start_mark.line) + 1


def compose(source: SourceFile, report: Report) -> Node | None:
    """Return the file's only document; None if the file is empty, or has a syntax error, which is reported."""
    if len(source.text) > LARGEST:
        report.add(1, f"the file has {len(source.text):,} characters; it may have {LARGEST:,}")
        return None
    forbidden = FORBIDDEN.search(source.text)
    if forbidden:
        code = f"U+{ord(forbidden[0]):04X}"
        at = source.text.count("\n", 0, forbidden.start()) + 1
        report.add(at, f"YAML does not allow the character {code}; save the file as UTF-8 text")
        return None
    try:
        return yaml.compose(source.text, LOADER)
    except yaml.MarkedYAMLError as error:
        report.add(*_syntax(error, source.text))
    except yaml.YAMLError as error:
        report.add(1, f"invalid YAML: {' '.join(str(error).split())}")
    except RecursionError:
        report.add(1, "invalid YAML: lists and maps are nested too deeply")
    return None


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """The line and the message for a YAML syntax error."""
    mark = error.problem_mark or error.context_mark
    at = mark.line if mark else 0
    if error.problem == "but found another document":
        return at + 1, "a second YAML document starts here; keep only one document in this file"
    lines = text.splitlines()
    here = lines[at] if at < len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return at + 1, "invalid YAML: a line is indented with a tab; use spaces"
    words = f"invalid YAML: {error.problem}"
    if error.context and error.context_mark and error.context_mark.line != at:
        words += f" ({error.context} that starts on line {error.context_mark.line + 1})"
    rest = here[mark.column :] if mark else ""
    before = here[: mark.column] if mark else ""
    if rest[:1] in {"@", "`", "%"} or before.endswith(("*", "&")):
        words += "; put the text in quotes"
    elif "mapping values are not allowed" in str(error.problem):
        words += "; put text that contains ': ' in quotes"
    return min(at + 1, max(len(lines), 1)), words


class Entry(Struct, frozen=True):
    """A key of a map, with its value and the line of the key."""

    key: str
    value: Node
    line: int


class Maps:
    """Reads the maps of one file, each once. Resolves merge keys and reports duplicate keys."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._read: dict[int, list[Entry]] = {}

    def entries(self, node: Node, where: str) -> list[Entry]:
        """Return the map's entries in file order. Entries merged with `<<` take its position; the map's own keys win.
        `where` is what messages call the map."""
        if id(node) not in self._read:
            self._read[id(node)] = []  # so a map that merges itself gets nothing
            self._read[id(node)] = list(self._entries(node, where))
        return self._read[id(node)]

    def _entries(self, node: Node, where: str) -> Iterable[Entry]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                self._report.add(line(key), f"a key in {where} is a list or a map; a key must be text")
            elif key.value in first:
                at = first[key.value]
                self._report.add(line(key), f"duplicate key '{key.value}' in {where}; it is already on line {at}")
            else:
                first[key.value] = line(key)
        entries: dict[str, Entry] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                continue
            if key.tag != MERGE:
                entries.setdefault(key.value, Entry(key.value, value, line(key)))
                continue
            for entry in self._merged(value, where):
                self._report.read(entry.value)
                if entry.key not in first:
                    entries.setdefault(entry.key, entry)
        return entries.values()

    def _merged(self, node: Node, where: str) -> list[Entry]:
        if isinstance(node, MappingNode):
            return self.entries(node, where)
        if isinstance(node, SequenceNode) and all(isinstance(item, MappingNode) for item in node.value):
            return [entry for item in node.value for entry in self.entries(item, where)]
        self._report.add(line(node), f"'<<' in {where} can only merge a map or a list of maps")
        return []
