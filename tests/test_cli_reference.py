"""The page about commands, and the help that it is made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dstack.cli.root import dstack

ROOT = Path(__file__).parent.parent


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")


ALL = dict(commands(dstack, "dstack"))


def test_the_page_is_current() -> None:
    page, script = ROOT / "docs" / "cli.md", ROOT / "scripts" / "lib" / "cli_reference.py"

    written = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout

    assert page.read_text() == written, "python scripts/lib/cli_reference.py > docs/cli.md"


@pytest.mark.parametrize("path", ALL)
def test_everything_has_a_help_that_fits(path: str) -> None:
    command = ALL[path]

    assert command.help
    assert len(command.get_short_help_str(limit=200)) <= 60
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name
