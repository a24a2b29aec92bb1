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
_SECTION = re.compile(r"\[([^:\]\s]+)(?::(hosts|vars|children))?\]\s*(?:#.*)?")


def read(text: str, path: str) -> Groups:
    """Parse an inventory. Raises UsageError with file and line for what can't be read."""
    groups = Groups()
    named: dict[str, int] = {}
    section, kind = UNGROUPED, "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        try:
            if found := _SECTION.fullmatch(line):
                section, kind = found[1], found[2] or "hosts"
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
                named.setdefault(child, number)
                groups.group(section).children[child] = None
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from error
    for child, number in named.items():
        if child not in groups.groups:
            raise UsageError(f"{path}:{number}: no group '{child}'; add the section [{child}], or remove this line")
    return groups


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
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
