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
    """Return the text with its variables replaced. A `$` that is not followed by a name or `{` is kept. Raises
    UsageError for a variable that is undefined or null, and for braces without a valid name in them."""
    for trouble in troubles(text, values):
        raise UsageError(trouble)

    def replace(match: re.Match[str]) -> str:
        name = _name(match)
        value = "$" if name is None else values[name]
        if value is None:
            raise UsageError(f"variable '${name}' is null; give it a value with --{name} VALUE")
        return value

    return REFERENCE.sub(replace, text)


def troubles(text: str, names: Collection[str], where: str = "") -> Iterator[str]:
    """Yield what `expand` would refuse in the text, whatever the values are. `where` follows the variable's name."""
    for match in REFERENCE.finditer(text):
        name = _name(match)
        if name is None and not match["dollar"]:
            yield f"'{match[0]}'{where} is not a valid variable; write ${{name}}, or $$ for a dollar sign"
        elif name is not None and name not in names:
            near = nearest(name, names)
            define = f"define it in configs.yaml, or write '$${name}' for a literal '${name}'"
            yield f"undefined variable '${name}'{where}; " + (f"did you mean '${near}'?" if near else define)


def mentions(text: str, name: str) -> bool:
    """Whether the text contains `$name` or `${name}`."""
    return any(_name(match) == name for match in REFERENCE.finditer(text))


def replace_config_args(command: str, args: str) -> str:
    """Return the command with only `$config_args` and `${config_args}` replaced."""
    return CONFIG_ARGS.sub(lambda match: args if match[1] else match[0], command)


def _name(match: re.Match[str]) -> str | None:
    """The variable's name; None for `$$` and for braces without a valid name."""
    if match["plain"]:
        return match["plain"]
    braced = match["braced"] or ""
    return braced if match["end"] and IDENTIFIER.fullmatch(braced) else None
