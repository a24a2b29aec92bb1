"""The hosts and groups of an inventory, and the precedence of their variables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import ascii_letters
from typing import Any

Variables = dict[str, Any]
ALL, UNGROUPED = "all", "ungrouped"

_RANGE = re.compile(r"\[([0-9A-Za-z]*):([0-9A-Za-z]+)(?::([0-9]+))?\]")
_PORT = re.compile(r"(?P<host>\[[^\]]*:[^\]]*\]|[^:\[\]]*(?:\[[^\]]*\][^:\[\]]*)*):(?P<port>\d+)")


@dataclass
class Group:
    """A group. `hosts` and `children` are by name, in file order."""

    name: str
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    variables: Variables = field(default_factory=dict)


class Groups:
    """All groups, and each host's own variables. `beside_groups` and `beside_hosts` come from group_vars/ and
    host_vars/."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.hosts: dict[str, Variables] = {}
        self.beside_groups: dict[str, Variables] = {}
        self.beside_hosts: dict[str, Variables] = {}
        self.group(ALL)
        self.group(UNGROUPED)

    def group(self, name: str) -> Group:
        """Return the group with this name; create it if needed."""
        return self.groups.setdefault(name, Group(name))

    def add(self, group: str, pattern: str, variables: Variables) -> None:
        """Add the hosts of a pattern to a group."""
        names, port = expand_hosts(pattern)
        for name in names:
            self.group(group).hosts[name] = None
            own = self.hosts.setdefault(name, {})
            if port is not None:
                own.setdefault("ansible_port", port)
            own.update(variables)

    def parents(self, name: str) -> list[str]:
        """Return the groups that directly contain a group; `all` if no other does."""
        found = [group.name for group in self.groups.values() if name in group.children]
        return found or ([ALL] if name != ALL else [])

    def depth(self, name: str, above: tuple[str, ...] = ()) -> int:
        """Return a group's depth below `all`, by the longest path. Raises ValueError if the group contains itself."""
        if name in above:
            raise ValueError(f"the group '{name}' contains itself; remove it from its own children")
        return max((self.depth(parent, (*above, name)) + 1 for parent in self.parents(name)), default=0)

    def of(self, host: str) -> list[str]:
        """Return all groups of a host, including their parents, weakest first."""
        found: dict[str, None] = {ALL: None}
        waiting = [group.name for group in self.groups.values() if host in group.hosts]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = None
                waiting += self.parents(name)
        return sorted(found, key=self._strength)

    def _strength(self, name: str) -> tuple[int, int, str]:
        priority = self.groups[name].variables.get("ansible_group_priority", 1)
        return self.depth(name), int(priority), name

    def variables(self, host: str) -> Variables:
        """Return a host's variables. From weakest to strongest: groups in the file, group_vars/, the host in the file,
        host_vars/. A deeper group wins over a shallower one."""
        merged: Variables = {}
        groups = self.of(host)
        for name in groups:
            merged.update(self.groups[name].variables)
        for name in groups:
            merged.update(self.beside_groups.get(name, {}))
        merged.update(self.hosts[host])
        merged.update(self.beside_hosts.get(host, {}))
        merged.pop("ansible_group_priority", None)
        return merged


def expand_hosts(pattern: str) -> tuple[list[str], int | None]:
    """Return the names that a pattern stands for, and its port. Raises ValueError for an invalid range."""
    found = _PORT.fullmatch(pattern)
    text, port = (found["host"], int(found["port"])) if found else (pattern, None)
    if text.startswith("[") and text.endswith("]") and not _RANGE.match(text):
        text = text[1:-1]  # an IPv6 address
    return _expand(text), port


def _expand(pattern: str) -> list[str]:
    """Return the names in order. With several ranges, the last one changes fastest."""
    matched = _RANGE.search(pattern)
    if matched is None:
        if "[" in pattern or "]" in pattern:
            raise ValueError(f"'{pattern}' has a bracket but no range; write a range such as [1:9] or [a:c]")
        return [pattern]
    head, tail = pattern[: matched.start()], _expand(pattern[matched.end() :])
    return [f"{head}{item}{rest}" for item in _items(matched[1], matched[2], int(matched[3] or 1)) for rest in tail]


def _items(begin: str, end: str, step: int) -> list[str]:
    begin = begin or "0"
    numbers = begin.isdecimal()
    if numbers != end.isdecimal() or step == 0 or not (numbers or len(begin) == len(end) == 1):
        raise ValueError(f"'[{begin}:{end}]' is not a valid range; write a range such as [1:9] or [a:c]")
    if numbers:
        width = len(begin) if begin.startswith("0") and len(begin) > 1 else 0
        if width and width != len(end):
            raise ValueError(f"'[{begin}:{end}]' starts with a zero, so both ends need the same number of digits")
        items = [str(number).zfill(width) for number in range(int(begin), int(end) + 1, step)]
    else:
        items = list(ascii_letters[ascii_letters.index(begin) : ascii_letters.index(end) + 1 : step])
    if not items:
        raise ValueError(f"'[{begin}:{end}]' runs backwards; write the smaller end first")
    return items
