"""Turns a hint such as `add --name OTHER` into the whole command line: as it was typed, with that option."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

OPTION = re.compile(r"(,?) ?\b(?<!runners )add (--[a-z][a-z-]*)((?: (?:[A-Z]|https?:)[^\s,;]*)?)")
"""An option that a hint wants added, with a value that is in capitals, a fingerprint or a URL."""
ADD_WITH = re.compile(r"\badd it with (--[a-z]+) ('[^']*'|[^\s,;']+)")
"""How a finding on a machine says it: `add it with --docker podman`."""


def whole(hint: str, arguments: Sequence[str]) -> str:
    """Return the hint with whole commands. `arguments` are those of the command line that failed."""

    def command(found: re.Match[str]) -> str:
        comma, option, value = found.groups()
        words = shlex.join(["dstack", *without(arguments, option if value else "")])
        return f"{': ' if comma else ' ' if found.start() else ''}{words} {option}{value}"

    def adding(found: re.Match[str]) -> str:
        return f"{shlex.join(['dstack', *without(arguments, found[1])])} {found[1]} {found[2]}"

    if list(arguments[:2]) == ["runners", "add"]:
        hint = ADD_WITH.sub(adding, hint)
    return OPTION.sub(command, hint)


def without(arguments: Sequence[str], option: str) -> list[str]:
    """Return the arguments without an option and its value, which a command takes only once."""
    left = list(arguments)
    while option in left:
        at = left.index(option)
        del left[at : at + 2]
    return [word for word in left if not (option and word.startswith(f"{option}="))]
