"""YAML as nodes: every value keeps its line and the text that its author wrote."""

from __future__ import annotations

import re
from typing import Any

import yaml
from msgspec import Struct

Node = yaml.Node
ScalarNode = yaml.ScalarNode
SequenceNode = yaml.SequenceNode
MappingNode = yaml.MappingNode

LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NULL = "tag:yaml.org,2002:null"
MERGE = "tag:yaml.org,2002:merge"

# What YAML's reader refuses, with a position instead of a line: found here first.
FORBIDDEN = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Source(Struct, frozen=True):
    """A file of the project: `path` as messages name it, relative to the project's folder."""

    path: str
    text: str


class Report:
    """What is wrong in one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._found: dict[tuple[int, str], None] = {}

    def add(self, line: int, text: str) -> None:
        """Note a problem. `line` counts from 1. What an alias repeats is noted once."""
        self._found[line, text] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def problems(self) -> list[str]:
        """One text a problem, `path:LINE: what is wrong`, in the order of the lines."""
        return [f"{self.path}:{line}: {text}" for line, text in sorted(self._found, key=lambda found: found[0])]


def line(node: Node) -> int:
    """The line where the node begins, from 1."""
    return int(node.start_mark.line) + 1


def compose(source: Source, report: Report) -> Node | None:
    """The file's only document, or None: for an empty file, and for one whose syntax is wrong, which is reported."""
    forbidden = FORBIDDEN.search(source.text)
    if forbidden:
        code = f"U+{ord(forbidden[0]):04X}"
        at = source.text.count("\n", 0, forbidden.start()) + 1
        report.add(at, f"the character {code} can't be part of YAML: save the file as UTF-8 text")
        return None
    try:
        loader = LOADER(source.text)
        try:
            node: Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        report.add(*_syntax(error, source.text))
        return None
    except (yaml.YAMLError, RecursionError) as error:
        report.add(1, f"no valid YAML: {' '.join(str(error).split())}")
        return None
    return node


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """The line and the words for what YAML's parser did not accept."""
    mark = error.problem_mark or error.context_mark
    at = mark.line if mark else 0
    if error.problem == "but found another document":
        return at + 1, "a second document begins here: a project file holds one"
    lines = text.splitlines()
    here = lines[at] if at < len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return at + 1, "no valid YAML: a line can't be indented with tabs; use spaces"
    words = f"no valid YAML: {error.problem}"
    if error.context and error.context_mark and error.context_mark.line != at:
        words += f" ({error.context} that begins in line {error.context_mark.line + 1})"
    rest = here[mark.column :] if mark else ""
    before = here[: mark.column] if mark else ""
    if rest[:1] in {"@", "`", "%"} or before.endswith(("*", "&")):
        words += "; put the text in quotes"
    elif "mapping values are not allowed" in str(error.problem):
        words += "; text that holds ': ' needs quotes"
    return min(at + 1, max(len(lines), 1)), words


class Entry(Struct, frozen=True):
    """A key of a map with its value. `line` is that of the key."""

    key: str
    value: Node
    line: int


class Maps:
    """Reads maps: merge keys are resolved, keys that are given twice reported. One a file: a map is read once."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._read: dict[int, list[Entry]] = {}

    def entries(self, node: MappingNode, place: str) -> list[Entry]:
        """The map's entries in the order of the file; what `<<` merges stands in its place, unless the map itself
        has the key. `place` says in messages where the map is."""
        known = self._read.get(id(node))
        if known is not None:
            return known
        self._read[id(node)] = []  # a map that merges itself finds nothing
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                self._report.add(line(key), f"a key in {place} is a list or a map: a key is one word")
            elif key.value in first:
                at = first[key.value]
                self._report.add(line(key), f"key '{key.value}' is given twice in {place}: first in line {at}")
            else:
                first[key.value] = line(key)
        found: dict[str, Entry] = {}
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.tag == MERGE:
                for entry in self._merged(value, place):
                    if entry.key not in first:
                        found.setdefault(entry.key, entry)
            elif isinstance(key, ScalarNode):
                found.setdefault(key.value, Entry(key.value, value, line(key)))
        self._read[id(node)] = list(found.values())
        return self._read[id(node)]

    def _merged(self, node: Node, place: str) -> list[Entry]:
        if isinstance(node, MappingNode):
            return self.entries(node, place)
        if isinstance(node, SequenceNode) and all(isinstance(item, MappingNode) for item in node.value):
            return [entry for item in node.value for entry in self.entries(item, place)]
        self._report.add(line(node), f"'<<' in {place} merges a map or a list of maps, nothing else")
        return []
