"""Expands host name patterns: `gpu[01:20].lab`, `rack-[a:c]`, `10.0.0.[1:9:2]:2222`.

They work as in Ansible (https://docs.ansible.com/ansible/latest/inventory_guide/intro_inventory.html).
"""

from __future__ import annotations

import re
from string import ascii_letters

_RANGE = re.compile(r"\[([0-9A-Za-z]*):([0-9A-Za-z]+)(?::([0-9]+))?\]")
_PORT = re.compile(r"(?P<host>\[[^\]]*:[^\]]*\]|[^:\[\]]*(?:\[[^\]]*\][^:\[\]]*)*):(?P<port>\d+)")


def hosts(pattern: str) -> tuple[list[str], int | None]:
    """Return the names that a pattern stands for, and its port. Raises ValueError for an invalid range."""
    found = _PORT.fullmatch(pattern)
    text, port = (found["host"], int(found["port"])) if found else (pattern, None)
    if text.startswith("[") and text.endswith("]") and not _RANGE.match(text):
        text = text[1:-1]  # an IPv6 address
    return expand(text), port


def expand(pattern: str) -> list[str]:
    """Return the names in order. With several ranges, the last one changes fastest."""
    matched = _RANGE.search(pattern)
    if matched is None:
        if "[" in pattern or "]" in pattern:
            raise ValueError(f"'{pattern}' has a bracket but no range; write a range such as [1:9] or [a:c]")
        return [pattern]
    head, tail = pattern[: matched.start()], expand(pattern[matched.end() :])
    return [f"{head}{item}{rest}" for item in _items(matched[1], matched[2], int(matched[3] or 1)) for rest in tail]


def _items(begin: str, end: str, step: int) -> list[str]:
    begin = begin or "0"
    if begin.isdecimal() != end.isdecimal() or step == 0:
        raise ValueError(f"'[{begin}:{end}]' is not a valid range; write a range such as [1:9] or [a:c]")
    if begin.isdecimal():
        width = len(begin) if begin.startswith("0") and len(begin) > 1 else 0
        if width and width != len(end):
            raise ValueError(f"'[{begin}:{end}]' starts with a zero, so both ends need the same number of digits")
        items = [str(number).zfill(width) for number in range(int(begin), int(end) + 1, step)]
    else:
        if len(begin) != 1 or len(end) != 1:
            raise ValueError(f"'[{begin}:{end}]' is not a valid range; write a range such as [1:9] or [a:c]")
        items = list(ascii_letters[ascii_letters.index(begin) : ascii_letters.index(end) + 1 : step])
    if not items:
        raise ValueError(f"'[{begin}:{end}]' runs backwards; write the smaller end first")
    return items
