"""Writes docs/cli.md from the help texts: `python scripts/lib/cli_reference.py > docs/cli.md`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dstack.cli.root import dstack

HEAD = """\
# Commands

This page is generated from the help texts: `python scripts/lib/cli_reference.py > docs/cli.md`.

For exit codes, see [exit-codes.md](exit-codes.md). Environment variables:

| variable | does |
|---|---|
| `DSTACK_HOME` | Folder for dstack's files on this machine; default: `~/.dstack`. |
| `DSTACK_SERVER_URL`, `DSTACK_TOKEN` | The server to use and its token; they override `dstack config`. |
| `DSTACK_IDLE_EXIT` | Seconds without work after which your own server stops; default: 600, 0 for never. |
| `DSTACK_URL_LIFETIME` | How long URLs of files in S3 storage are valid; default: 12h. Set it for the server. |
| `NO_COLOR` | Turns colours off. |
"""


def markdown() -> str:
    """Return the page."""
    return "\n".join([HEAD, *_sections(dstack, "dstack")]).rstrip() + "\n"


def _sections(command: click.Command, path: str) -> Iterator[str]:
    ctx = click.Context(command, info_name=path)
    if path != "dstack":
        yield f"## `{path}`\n"
    if not isinstance(command, click.Group) or any(isinstance(each, click.Argument) for each in command.params):
        yield f"    {path} {' '.join(command.collect_usage_pieces(ctx))}\n"
    if command.help:
        yield inspect.cleandoc(command.help).replace("\b\n", "") + "\n"
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if options and path != "dstack":
        yield "| option | does |\n|---|---|"
        yield "\n".join(f"| `{_spelling(option)}` | {option.help} |" for option in options) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from _sections(inner, f"{path} {name}")


def _spelling(option: click.Option) -> str:
    names = ", ".join(option.opts)
    if option.is_flag:
        return names
    choices = option.type.choices if isinstance(option.type, click.Choice) else None
    return f"{names} {option.metavar or (' or '.join(map(str, choices)) if choices else option.name)}"


if __name__ == "__main__":
    print(markdown(), end="")
