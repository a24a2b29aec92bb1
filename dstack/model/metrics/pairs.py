"""Finds names and numbers in a line: `name=value`, `name: value`, and `loss 0.5` for what is surely a metric."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from dstack.model.metrics.values import NUMBER, STEPS, name_of

END = r"(?:%(?!\|))?(/\d+)?(?![\w%]|[.:,-]\d)"
"""What may follow a number: `%`, but not as in the `50%|` of a progress bar; `/10` after a number of steps."""
SIGNED = re.compile(rf"[=:]\s*['\"]?({NUMBER}){END}", re.ASCII)
"""`=` or `:`, and a number."""
BARE = re.compile(rf" (?=[-+.\dnNiI\[(# ]) *[\[(#]?({NUMBER}){END}", re.ASCII)
"""Only spaces before a number."""
SETS = ("train", "training", "val", "valid", "validation", "test", "eval", "evaluation")
BACKWARDS = re.compile(
    rf"([\w./@-]*[A-Za-z_])(?![\w./@-])(?: (?i:{'|'.join(name[::-1] for name in SETS)})(?![\w./@-]))?", re.ASCII
)
"""A name, perhaps after the set that it was measured on, read backwards: from where it ends."""
SURELY = re.compile(
    r"(?i:loss|acc|accuracy|perplexity|ppl|mfu|lr|error|auc|f1|rmse|mae|mse|score|reward|precision|recall)$"
)
"""How names end that are metrics without `=` or `:`, too."""
FARTHEST = 220
"""Characters before a number in which its name is."""


class Pair(Struct, frozen=True):
    """A name, which goes from `begin` to `end` in its line, and a number from `at` to `after`. `lasting`: the same
    characters around any other number would be a pair, too."""

    name: str
    value: float
    begin: int
    end: int
    at: int
    after: int
    lasting: bool = True

    @property
    def counts(self) -> bool:
        """Whether it is a step."""
        return self.name.lower() in STEPS


def pairs(line: str) -> list[Pair]:
    """Return the pairs of a line, in order."""
    found = [*_signed(line), *_bare(line)]
    return sorted(found, key=lambda pair: pair.at) if len(found) > 1 else found


def _signed(line: str) -> Iterator[Pair]:
    for match in SIGNED.finditer(line):
        tight = match.start(1) == match.start() + 1 and line[match.start()] == ":"
        if tight and match[1].isdigit():  # host:8080
            continue
        pair = _before(line, match.start(), match, lasting=not tight)
        if pair is not None and (match[2] is None or pair.counts):
            yield pair


def _bare(line: str) -> Iterator[Pair]:
    for match in BARE.finditer(line):
        pair = _before(line, match.start(), match)
        if pair is None or pair.end != match.start():
            continue
        one_space = match.start(1) == match.start() + 1
        if pair.counts or (one_space and match[2] is None and SURELY.search(pair.name)):
            yield pair


def _before(line: str, start: int, number: re.Match[str], *, lasting: bool = True) -> Pair | None:
    """Return the pair of a number and the name that ends before `start`, None if no name does."""
    left = line[max(0, start - FARTHEST) : start].rstrip(" \t'\"")
    found = BACKWARDS.match(left[::-1])
    if found is None:
        return None
    text, last = found[0][::-1], found[1][::-1]
    end = max(0, start - FARTHEST) + len(left)
    name = last if last.lower() in STEPS else name_of(text)
    return Pair(name, float(number[1]), end - len(text), end, number.start(1), number.end(1), lasting) if name else None
