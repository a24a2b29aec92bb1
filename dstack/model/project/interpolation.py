"""Variables in text: `$x` and `${x}`, and `$$` for a dollar sign."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from dstack.errors import UsageError
from dstack.model.text.suggest import nearest

REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[^}]*)(?P<end>\}?))")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# `\$config_args` is escaped for the shell, and `$$` is the shell's process id: neither is replaced.
CONFIG_ARGS = re.compile(r"\\.|\$\$|(\$config_args(?![A-Za-z0-9_])|\$\{config_args\})", re.DOTALL)


def expand(text: str, values: Mapping[str, str | None]) -> str:
    """Return the text with its variables replaced. A `$` that is not followed by a name or `{` is kept.

    Raises UsageError for a variable that is undefined or null, and for braces without a valid name in them.
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
    """Yield what `expand` would refuse in the text, whatever the values are. `where` follows the variable's name."""
    for match in REFERENCE.finditer(text):
        if match["dollar"]:
            continue
        name = _name(match)
        if name is None:
            yield malformed(match[0], where)
        elif name not in names:
            yield undefined(name, names, where)


def malformed(reference: str, where: str = "") -> str:
    """Return the message for braces that contain something other than a name."""
    return f"'{reference}'{where} is not a valid variable; write ${{name}}, or $$ for a dollar sign"


def undefined(name: str, names: Collection[str], where: str = "") -> str:
    """Return the message for an undefined variable."""
    near = nearest(name, names)
    define = f"define it in configs.yaml, or write '$${name}' for a literal '${name}'"
    return f"undefined variable '${name}'{where}; " + (f"did you mean '${near}'?" if near else define)


def mentions(text: str, name: str) -> bool:
    """Whether the text contains `$name` or `${name}`."""
    return any(_name(match) == name for match in REFERENCE.finditer(text))


def replace_config_args(command: str, args: str) -> str:
    """Return the command with only `$config_args` and `${config_args}` replaced."""
    return CONFIG_ARGS.sub(lambda match: args if match[1] else match[0], command)


def _null(name: str) -> str:
    return f"variable '${name}' is null; give it a value with --{name} VALUE"


def _name(match: re.Match[str]) -> str | None:
    if match["plain"]:
        return match["plain"]
    braced = match["braced"] or ""
    return braced if match["end"] and IDENTIFIER.fullmatch(braced) else None
