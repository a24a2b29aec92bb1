"""Reads inventories in Ansible's INI format."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

from dstack.errors import UsageError
from dstack.inventory.groups import UNGROUPED, Groups

LITERAL = 10_000
"""Characters of the longest text that is read as a Python literal."""
_VALUES = (str, int, float, list, tuple, dict, set)
_SECTION = re.compile(r"\[([^:\]\s]+)(?::(hosts|vars|children))?\]\s*(?:#.*)?")


def read(text: str, path: str, groups: Groups | None = None) -> Groups:
    """Parse an inventory and add it to the groups. Raises UsageError with file and line for what can't be read."""
    groups = groups or Groups()
    undefined: dict[str, int] = {}
    section, kind = UNGROUPED, "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        try:
            if found := _SECTION.fullmatch(line):
                section, kind = found[1], found[2] or "hosts"
                _note(undefined, groups, section, number if kind == "vars" else None)
                groups.group(section)
            elif line.startswith("[") and line.endswith("]"):
                raise ValueError(f"'{line}' is not valid; write [GROUP], [GROUP:vars] or [GROUP:children]")
            elif kind == "hosts":
                _host(groups, section, line)
            elif kind == "vars":
                name, value = _split(line)
                groups.group(section).variables[name] = value
            else:
                child = line.split("#")[0].strip()
                _note(undefined, groups, child, number)
                groups.group(section).children[child] = None
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from error
    for name, number in undefined.items():
        raise UsageError(f"{path}:{number}: no group '{name}'; add the section [{name}], or remove this line")
    return groups


def _note(undefined: dict[str, int], groups: Groups, name: str, number: int | None) -> None:
    """Note that line `number` mentions a group, or, if None, that a section defines it."""
    if number is None:
        undefined.pop(name, None)
    elif name not in groups.groups:
        undefined.setdefault(name, number)


def _host(groups: Groups, section: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    groups.add(section, words[0], dict(map(_split, words[1:])))


def _split(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"'{text}' is not a variable; write NAME=VALUE")
    return name.strip(), _value(value.strip())


def _value(text: str) -> Any:
    """Parse a Python literal, as Ansible does; any other text stays as it is."""
    if len(text) > LITERAL:
        return text
    try:
        value = ast.literal_eval(text)
        if isinstance(value, bytes):
            return value.decode(errors="surrogateescape")
        return value if value is None or isinstance(value, _VALUES) else text
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
