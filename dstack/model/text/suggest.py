"""Suggests the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

_EFFORT = 30_000
"""Pairs of letters that are compared: of 300 names with ten letters."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice closest to the misspelled `word`, or else the only one that starts with it, or else None. Up to
    a third of the letters may be wrong. Case is ignored, and '_' equals '-'."""
    names = sorted(set(choices))
    plain = _plain(word)
    alike = [name for name in names if abs(len(name) - len(plain)) <= max(len(plain), len(name)) // 3]
    close = {name: _distance(plain, _plain(name)) for name in alike[: _EFFORT // (len(plain) + 1) ** 2]}
    fitting = [name for name in close if close[name] <= max(len(plain), len(name)) // 3]
    if fitting:
        return min(fitting, key=close.__getitem__)
    longer = [name for name in names if len(plain) > 2 and _plain(name).startswith(plain)]
    return longer[0] if len(longer) == 1 else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or "" if no choice is close."""
    name = nearest(word, choices)
    return "" if name is None else f"; did you mean '{name}'?"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _distance(one: str, other: str) -> int:
    """Count the letters to insert, delete, change or swap with a neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
