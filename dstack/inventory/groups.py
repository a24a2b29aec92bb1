"""The hosts and groups of an inventory, and the precedence of their variables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import product
from math import prod
from string import ascii_letters
from typing import Any

Variables = dict[str, Any]
ALL, UNGROUPED = "all", "ungrouped"
PRIORITY = "ansible_group_priority"

MOST_HOSTS = 10_000
MOST_GROUPS = 1_000
LONGEST = 1_000
_DIGITS = 9
_RANGE = re.compile(r"\[([0-9A-Za-z]*):([0-9A-Za-z]+)(?::([0-9]+))?\]")
_PORT = re.compile(r"(?P<host>\[[^\]]*:[^\]]*\]|[^:\[\]]*(?:\[[^\]]*\][^:\[\]]*)*):(?P<port>[0-9]{1,9})")


@dataclass
class Group:
    """A group. `hosts` and `children` are by name, in file order."""

    name: str
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    variables: Variables = field(default_factory=dict)


class Groups:
    """All groups, and each host's own variables. `beside_groups` and `beside_hosts` come from group_vars/ and
    host_vars/; `notes` are warnings for the user. Ask about parents and depths only when all groups are there."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.hosts: dict[str, Variables] = {}
        self.beside_groups: dict[str, Variables] = {}
        self.beside_hosts: dict[str, Variables] = {}
        self.notes: list[str] = []
        self.group(ALL)
        self.group(UNGROUPED)

    def group(self, name: str) -> Group:
        """Return the group with this name; create it if needed. Raises ValueError if there are too many."""
        if name not in self.groups and len(self.groups) >= MOST_GROUPS:
            raise ValueError(f"an inventory may have {MOST_GROUPS:,} groups; split it into several files")
        return self.groups.setdefault(name, Group(name))

    def add(self, group: str, pattern: str, variables: Variables) -> None:
        """Add the hosts of a pattern to a group. Raises ValueError if there are too many."""
        names, port = expand_hosts(pattern)
        for name in names:
            self.group(group).hosts[name] = None
            own = self.hosts.setdefault(name, {})
            if port is not None:
                own.setdefault("ansible_port", port)
            own.update(variables)
        if len(self.hosts) > MOST_HOSTS:
            raise ValueError(f"an inventory may have {MOST_HOSTS:,} hosts; split it into several files")

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """The groups that directly contain each group; `all` if no other does."""
        found: dict[str, list[str]] = {name: [] for name in self.groups}
        for group in self.groups.values():
            for child in group.children:
                found[child].append(group.name)
        return {name: above or [ALL] * (name != ALL) for name, above in found.items()}

    @cached_property
    def depths(self) -> dict[str, int]:
        """Each group's depth below `all`, by the longest path. Raises ValueError if a group contains itself."""
        depths: dict[str, int] = {}
        try:
            for name in TopologicalSorter(self.parents).static_order():
                depths[name] = max((depths[parent] + 1 for parent in self.parents[name]), default=0)
        except CycleError as error:
            name = error.args[1][0]
            raise ValueError(f"the group '{name}' contains itself; remove it from its own children") from error
        return depths

    @cached_property
    def holding(self) -> dict[str, list[str]]:
        """The groups that directly contain each host."""
        found: dict[str, list[str]] = {}
        for group in self.groups.values():
            for host in group.hosts:
                found.setdefault(host, []).append(group.name)
        return found

    def of(self, host: str) -> list[str]:
        """Return all groups of a host, including their parents, weakest first."""
        found: dict[str, None] = {ALL: None}
        waiting = list(self.holding.get(host, ()))
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = None
                waiting += self.parents[name]
        return sorted(found, key=self._strength)

    def _strength(self, name: str) -> tuple[int, int, str]:
        priority = self.groups[name].variables.get(PRIORITY, 1)
        if not isinstance(priority, int):
            raise ValueError(f"ansible_group_priority of the group '{name}' must be a whole number, not {priority!r}")
        return self.depths[name], priority, name

    def variables(self, host: str) -> Variables:
        """Return a host's variables. From weakest to strongest: groups in the file, group_vars/, the host in the file,
        host_vars/. A deeper group wins over a shallower one."""
        merged: Variables = {}
        groups = self.of(host)
        for name in groups:
            own = self.groups[name].variables
            merged.update({key: value for key, value in own.items() if key != PRIORITY})
        for name in groups:
            merged.update(self.beside_groups.get(name, {}))
        merged.update(self.hosts[host])
        merged.update(self.beside_hosts.get(host, {}))
        return merged


def expand_hosts(pattern: str) -> tuple[list[str], int | None]:
    """Return the names that a pattern stands for, and its port. Raises ValueError for an invalid range, and for more
    names than an inventory may have."""
    if len(pattern) > LONGEST:
        raise ValueError(f"'{pattern[:20]}...' has {len(pattern):,} characters; a host's name may have {LONGEST:,}")
    found = _PORT.fullmatch(pattern)
    text, port = (found["host"], int(found["port"])) if found else (pattern, None)
    if text.startswith("[") and text.endswith("]") and not _RANGE.match(text):
        text = text[1:-1]  # an IPv6 address
    return _expand(text), port


def _expand(pattern: str) -> list[str]:
    """Return the names in order. With several ranges, the last one changes fastest."""
    if re.search(r"[\[\]]", _RANGE.sub("", pattern)):
        raise ValueError(f"'{pattern}' has a bracket but no range; write a range such as [1:9] or [a:c]")
    ranges = [_items(found[1], found[2], found[3] or "1") for found in _RANGE.finditer(pattern)]
    texts = _RANGE.split(pattern)[:: _RANGE.groups + 1]
    count = prod(map(len, ranges))
    if count > MOST_HOSTS:
        raise ValueError(f"'{pattern}' stands for {count:,} hosts; an inventory may have {MOST_HOSTS:,}")
    return ["".join(map("".join, zip(texts, (*items, ""), strict=True))) for items in product(*ranges)]


def _items(begin: str, end: str, by: str) -> Sequence[str]:
    begin = begin or "0"
    if max(map(len, (begin, end, by))) > _DIGITS:
        raise ValueError(f"'[{begin[:20]}:{end[:20]}]' is not a valid range; its numbers may have {_DIGITS} digits")
    step = int(by)
    numeric = begin.isdecimal()
    if numeric != end.isdecimal() or step == 0 or not (numeric or len(begin) == len(end) == 1):
        raise ValueError(f"'[{begin}:{end}]' is not a valid range; write a range such as [1:9] or [a:c]")
    if numeric:
        width = len(begin) if begin.startswith("0") and len(begin) > 1 else 0
        if width and width != len(end):
            raise ValueError(f"'[{begin}:{end}]' starts with a zero, so both ends need the same number of digits")
        numbers = range(int(begin), int(end) + 1, step)
        if len(numbers) > MOST_HOSTS:
            count = len(numbers)
            raise ValueError(f"'[{begin}:{end}]' stands for {count:,} hosts; an inventory may have {MOST_HOSTS:,}")
        items = [str(number).zfill(width) for number in numbers]
    else:
        items = list(ascii_letters[ascii_letters.index(begin) : ascii_letters.index(end) + 1 : step])
    if not items:
        raise ValueError(f"'[{begin}:{end}]' runs backwards; write the smaller end first")
    return items
