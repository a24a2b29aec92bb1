"""Patterns of host names: `gpu[01:20].lab`, `rack-[a:c]`, `10.0.0.[1:9:2]:2222`.

They mean what Ansible says (https://docs.ansible.com/ansible/latest/inventory_guide/intro_inventory.html).
"""

from __future__ import annotations

import re
from string import ascii_letters

_RANGE = re.compile(r"\[([0-9A-Za-z]*):([0-9A-Za-z]+)(?::([0-9]+))?\]")
_PORT = re.compile(r"(?P<host>\[[^\]]*:[^\]]*\]|[^:\[\]]*(?:\[[^\]]*\][^:\[\]]*)*):(?P<port>\d+)")


def hosts(pattern: str) -> tuple[list[str], int | None]:
    """The names that a pattern stands for, and the port behind it. ValueError for a range that makes no sense."""
    found = _PORT.fullmatch(pattern)
    text, port = (found["host"], int(found["port"])) if found else (pattern, None)
    if text.startswith("[") and text.endswith("]") and not _RANGE.match(text):
        text = text[1:-1]  # an IPv6 address
    return expand(text), port


def expand(pattern: str) -> list[str]:
    """The names, in order; of several ranges, the last runs fastest."""
    found = _RANGE.search(pattern)
    if found is None:
        if "[" in pattern or "]" in pattern:
            raise ValueError(f"'{pattern}' has a bracket and no range like [1:9] or [a:c]")
        return [pattern]
    head, tail = pattern[: found.start()], expand(pattern[found.end() :])
    return [f"{head}{item}{rest}" for item in _items(found[1], found[2], int(found[3] or 1)) for rest in tail]


def _items(begin: str, end: str, step: int) -> list[str]:
    begin = begin or "0"
    if begin.isdecimal() != end.isdecimal() or step == 0:
        raise ValueError(f"'[{begin}:{end}]' is no range")
    if begin.isdecimal():
        width = len(begin) if begin.startswith("0") and len(begin) > 1 else 0
        if width and width != len(end):
            raise ValueError(f"'[{begin}:{end}]' has ends of different lengths")
        items = [str(number).zfill(width) for number in range(int(begin), int(end) + 1, step)]
    else:
        if len(begin) != 1 or len(end) != 1:
            raise ValueError(f"'[{begin}:{end}]' is no range")
        items = list(ascii_letters[ascii_letters.index(begin) : ascii_letters.index(end) + 1 : step])
    if not items:
        raise ValueError(f"'[{begin}:{end}]' runs backwards")
    return items
