"""The page about commands, and the help that it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dstack.cli.reference import markdown
from dstack.cli.root import dstack


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
    page = Path(__file__).parents[3] / "docs" / "cli.md"

    assert page.read_text() == markdown(), "python -m dstack.cli.reference > docs/cli.md"


@pytest.mark.parametrize("path", ALL)
def test_everything_has_a_help_that_fits(path: str) -> None:
    command = ALL[path]

    assert command.help
    assert len(command.get_short_help_str(limit=200)) <= 60
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name
