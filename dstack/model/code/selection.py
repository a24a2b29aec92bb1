"""Selects the files of the repository that a workflow depends on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from dstack.model.code.tree import TreeFile
from dstack.model.project.locations import normal

Rule = Callable[[str], bool]

DEFINITIONS = ".dstack/"


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
        return sorted([*inside, *outside], key=_path), ()
    chosen: dict[str, TreeFile] = {}
    unmatched = []
    for entry in include:
        fits = rule(entry)
        fitting = [file for file in inside if fits(file.path)]
        chosen.update((file.path, file) for file in fitting)
        if not fitting:
            unmatched.append(entry)
    return sorted(chosen.values(), key=_path), tuple(unmatched)


def rule(entry: str) -> Rule:
    """Return a function that says whether a path matches the entry: a file, a folder and all below it, or a pattern.

    `*` and `?` match anything but '/', `[..]` one character, and `**` between slashes any number of folders. A pattern
    that matches a folder matches all below it. An entry that ends with a slash matches folders only.
    """
    plain = normal(entry)
    folder = f"{plain}/" if plain else ""
    files_too = not entry.endswith(("/", "/."))
    pattern = _pattern(plain, files_too) if re.search(r"[*?\[]", plain) else None

    def fits(path: str) -> bool:
        if path.startswith(folder) or (files_too and path == plain):
            return True
        return pattern is not None and pattern.fullmatch(path) is not None

    return fits


def _path(file: TreeFile) -> str:
    return file.path


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
    parts = entry.split("/")
    expression = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += ".*" if last else "(?:.*/)?"
        else:
            expression += _part(part) + ("" if last else "/")
    return re.compile(expression + ("(?:/.*)?" if files_too else "/.*"), re.DOTALL)


def _part(part: str) -> str:
    """Convert one part between slashes to a regular expression."""
    expression, at = "", 0
    while at < len(part):
        letter = part[at]
        closing = part.find("]", at + (3 if part[at + 1 : at + 2] in ("!", "^") else 2)) if letter == "[" else -1
        if letter == "*":
            expression += "[^/]*"
        elif letter == "?":
            expression += "[^/]"
        elif closing > 0:
            expression += _characters(part[at + 1 : closing])
            at = closing
        else:
            expression += re.escape(letter)
        at += 1
    return expression


def _characters(body: str) -> str:
    """Convert the inside of `[..]`: characters and ranges such as `a-z`; a leading `!` or `^` negates."""
    negated = body[0] in "!^"
    choices = body[1:] if negated else body
    allowed, at = [], 0
    while at < len(choices):
        low, high = choices[at], choices[at]
        if choices[at + 1 : at + 2] == "-" and at + 2 < len(choices):
            high = choices[at + 2]
        at += 1 if low is high else 3
        if low <= high:
            allowed.append(f"{re.escape(low)}-{re.escape(high)}")
    if not allowed:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(allowed)}]"


def _relative(path: str, prefix: str) -> str:
    """Return the path relative to the project's folder `prefix`, which it is outside of."""
    folders = prefix.rstrip("/").split("/")
    parts = path.split("/")
    shared = 0
    while shared < len(folders) and parts[shared] == folders[shared]:
        shared += 1
    return "/".join([".."] * (len(folders) - shared) + parts[shared:])
