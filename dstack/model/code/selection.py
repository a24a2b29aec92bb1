"""Selects the files of the repository that a workflow depends on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, count
from operator import attrgetter
from posixpath import commonprefix

from dstack.model.code.tree import TreeFile
from dstack.model.project.locations import normal
from dstack.model.text.suggest import did_you_mean

Rule = Callable[[str], bool]

DEFINITIONS = ".dstack/"
SYMBOL = re.compile(r"\[(?:[!^](?P<negated>.[^]]*)|(?P<body>[^!^][^]]*))\]|.", re.DOTALL)
"""A set of characters such as `[a-z]` or `[!a-z]`, in which a first `]` is an ordinary character; or any character."""


def select(
    files: Iterable[TreeFile], project: str, include: tuple[str, ...] | None
) -> tuple[list[TreeFile], tuple[str, ...]]:
    """Return the files that match the entries, sorted, with paths relative to the project's folder; and the entries
    that match nothing.

    The paths of `files` are relative to the git root. `project` is the folder that contains `.dstack`, "" for the root.
    If `include` is None, all files of the repository match; those outside the project's folder become `../x`. Files in
    `.dstack/` never match.
    """
    inside, outside = _divided(files, f"{normal(project)}/".lstrip("/"))
    if include is None:
        return sorted([*inside, *outside], key=attrgetter("path")), ()
    chosen = {entry: _matching(entry, inside) for entry in include}
    unique = {file.path: file for fitting in chosen.values() for file in fitting}
    return sorted(unique.values(), key=attrgetter("path")), tuple(entry for entry in include if not chosen[entry])


def unmatched_warnings(workflow: str, unmatched: Iterable[str], files: Iterable[TreeFile], project: str) -> list[str]:
    """Return a sentence for each entry of a workflow's `include` that matches nothing, with the nearest path."""
    entries = list(unmatched)
    paths = [file.path for file in _divided(files, f"{normal(project)}/".lstrip("/"))[0]] if entries else []
    known = {*paths, *(parent + "/" for path in paths for parent in _parents(path))}
    return [f"{workflow}: include '{entry}' matches no file{_near(entry, known)}" for entry in entries]


def _near(entry: str, known: Iterable[str]) -> str:
    """Suggest the path that was probably meant. Of a pattern, the part before the first symbol counts."""
    plain = re.split(r"[*?\[]", entry)[0] if re.search(r"[*?\[]", entry) else entry
    return did_you_mean(f"{normal(plain)}/" if plain.endswith("/") else normal(plain), known) if plain else ""


def _parents(path: str) -> Iterator[str]:
    return accumulate(path.rstrip("/").split("/")[:-1], "{}/{}".format)


def rule(entry: str) -> Rule:
    """Return a function that says whether a path matches the entry: a file, a folder and all below it, or a pattern.
    `*` and `?` match anything but '/', `[..]` one character, and `**` between slashes any number of folders. A pattern
    that matches a folder matches all below it. An entry that ends with a slash matches folders only."""
    plain = normal(entry)
    folder = f"{plain}/" if plain else ""
    files_too = not entry.endswith(("/", "/."))
    pattern = _pattern(plain, files_too) if re.search(r"[*?\[]", plain) else None

    def fits(path: str) -> bool:
        if path.startswith(folder) or (files_too and path == plain):
            return True
        return pattern is not None and pattern.fullmatch(path) is not None

    return fits


def _matching(entry: str, files: Iterable[TreeFile]) -> list[TreeFile]:
    fits = rule(entry)
    return [file for file in files if fits(file.path)]


def _divided(files: Iterable[TreeFile], prefix: str) -> tuple[list[TreeFile], list[TreeFile]]:
    """Return the files inside the project's folder and those outside, with paths relative to that folder."""
    inside, outside = [], []
    for file in files:
        if not file.path.startswith(prefix):
            outside.append(TreeFile(_relative(file.path, prefix), file.mode, file.id))
        elif not file.path.startswith(prefix + DEFINITIONS):
            inside.append(TreeFile(file.path[len(prefix) :] or "./", file.mode, file.id))
    return inside, outside


def _pattern(entry: str, files_too: bool) -> re.Pattern[str]:
    """Each `*` and `**` but the last takes as little as it can and is not tried again: so no pattern takes long."""
    numbers = count()
    *folders, last = entry.split("/")
    runs: list[list[str]] = [[]]
    for part in folders:
        if part == "**":
            runs.append([])
        else:
            runs[-1].append(f"{_part(part, numbers)}/")
    whole = ".*" if last == "**" else _part(last, numbers)
    runs[-1].append(whole + (r"(?=/|\Z)" if files_too else "/"))
    first, *others = map("".join, runs)
    end = "(?:/.*)?" if files_too else ".*"
    return re.compile(first + "".join(_once(f"(?:.*?/)??{run}", numbers) for run in others) + end, re.DOTALL)


def _once(pattern: str, numbers: Iterator[int]) -> str:
    """Return a pattern that takes its first match and is not tried again."""
    name = f"_{next(numbers)}"
    return f"(?=(?P<{name}>{pattern}))(?P={name})"


def _part(part: str, numbers: Iterator[int]) -> str:
    """Convert one part between slashes to a regular expression."""
    texts = [""]
    for symbol in SYMBOL.finditer(part):
        if symbol[0] == "*":
            texts.append("")
        elif symbol["body"] or symbol["negated"]:
            texts[-1] += _characters(symbol["body"] or symbol["negated"], negated=symbol["body"] is None)
        else:
            texts[-1] += "[^/]" if symbol[0] == "?" else re.escape(symbol[0])
    first, *others = texts
    middle = "".join(_once(f"[^/]*?{text}", numbers) for text in others[:-1] if text)
    return first + middle + (f"[^/]*{others[-1]}" if others else "")


def _characters(choices: str, *, negated: bool) -> str:
    """Convert the inside of `[..]`: characters and ranges such as `a-z`."""
    ranges = [(low or one, high or one) for low, high, one in re.findall(r"(.)-(.)|(.)", choices, re.DOTALL)]
    allowed = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high)
    if not allowed:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{allowed}]"


def _relative(path: str, prefix: str) -> str:
    """Return the path relative to the project's folder `prefix`, which it is outside of."""
    folders, parts = prefix.rstrip("/").split("/"), path.split("/")
    shared = len(commonprefix([folders, parts]))
    return "/".join([".."] * (len(folders) - shared) + parts[shared:])
