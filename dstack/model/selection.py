"""Which files of the repository a workflow depends on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from msgspec import Struct

from dstack.model import location

Rule = Callable[[str], bool]

DEFINITIONS = ".dstack/"


class TreeFile(Struct, frozen=True):
    """A file of the snapshot. `mode` in git's octal (`100644`), `id` that of its blob. A folder has a slash at the end
    of its path, and no id."""

    path: str
    mode: str
    id: str

    @property
    def is_folder(self) -> bool:
        """Whether it is one, of which there is more to say than that files are in it."""
        return self.path.endswith("/")


def select(
    files: Iterable[TreeFile], project: str, include: tuple[str, ...] | None
) -> tuple[list[TreeFile], tuple[str, ...]]:
    """The files that the entries name, sorted, with paths relative to the project's folder; and the entries that
    name no file.

    `files` have paths relative to the git root, `project` is the folder that holds `.dstack`, "" for the root. None
    for `include` is all files of the repository, those outside the project's folder as `../x`. What is in `.dstack/`
    never counts.
    """
    inside, outside = _divided(files, f"{location.normal(project)}/".lstrip("/"))
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
    """Whether a path is named by the entry: a file, a folder with all below it, or a pattern.

    `*` and `?` stand for anything but '/', `[..]` for one character, `**` between slashes for any folders. A pattern
    that fits a folder names all below it. With a slash at its end an entry names folders alone.
    """
    plain = location.normal(entry)
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
    """The files in the project's folder and those outside of it, with paths as seen from there."""
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
    """One part between slashes as a regular expression."""
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
    """`[..]`: characters and ranges like `a-z`; `!` or `^` in front stands for all others."""
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
    """The path as seen from the project's folder `prefix`, which it is not in."""
    folders = prefix.rstrip("/").split("/")
    parts = path.split("/")
    shared = 0
    while shared < len(folders) and parts[shared] == folders[shared]:
        shared += 1
    return "/".join([".."] * (len(folders) - shared) + parts[shared:])
