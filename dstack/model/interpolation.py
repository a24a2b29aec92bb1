"""Variables in text: `$x` and `${x}`, and `$$` for a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from dstack.errors import UsageError
from dstack.model.suggest import nearest

REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[^}]*)(?P<end>\}?))")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# `\$config_args` is the shell's escape, `$$` its own process id: both are passed over.
CONFIG_ARGS = re.compile(r"\\.|\$\$|(\$config_args(?![A-Za-z0-9_])|\$\{config_args\})", re.DOTALL)


def expand(text: str, values: Mapping[str, str | None]) -> str:
    """The text with its variables replaced. A `$` that begins neither a name nor `${` stays.

    Raises UsageError for a variable that is not defined or null, and for braces that hold no name.
    """

    def replace(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = _name(match)
        if name is None:
            raise UsageError(malformed(match[0]))
        value = values.get(name)
        if value is None:
            raise UsageError(_null(name) if name in values else undefined(name, values))
        return value

    return REFERENCE.sub(replace, text)


def troubles(text: str, names: Collection[str], where: str = "") -> Iterator[str]:
    """What `expand` would refuse in the text, whatever values the names get. `where` goes behind the variable."""
    for match in REFERENCE.finditer(text):
        if match["dollar"]:
            continue
        name = _name(match)
        if name is None:
            yield malformed(match[0], where)
        elif name not in names:
            yield undefined(name, names, where)


def malformed(reference: str, where: str = "") -> str:
    """The words for braces that hold something else than a name."""
    return f"'{reference}'{where} is no variable: write ${{name}}, or $$ for a dollar sign"


def undefined(name: str, names: Collection[str], where: str = "") -> str:
    """The words for a variable that nobody defined."""
    near = nearest(name, names)
    return f"undefined variable '${name}'{where}" + (f"; did you mean '${near}'?" if near else "")


def mentions(text: str, name: str) -> bool:
    """Whether the text holds `$name` or `${name}`."""
    return any(_name(match) == name for match in REFERENCE.finditer(text))


def replace_config_args(command: str, args: str) -> str:
    """The command with `$config_args` and `${config_args}` replaced, and nothing else."""
    return CONFIG_ARGS.sub(lambda match: args if match[1] else match[0], command)


def _null(name: str) -> str:
    return f"variable '${name}' is null, so it can't be part of a text; give it a value with --{name} VALUE"


def _name(match: re.Match[str]) -> str | None:
    if match["plain"]:
        return match["plain"]
    braced = match["braced"] or ""
    return braced if match["end"] and IDENTIFIER.fullmatch(braced) else None
