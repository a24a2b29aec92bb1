"""The page about commands, and the help that it is made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dstack.cli.parameters import SIZE, SPAN, Quantity
from dstack.cli.root import dstack
from dstack.errors import UsageError

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


NUMBERS = [(path, each) for path in ALL for each in ALL[path].params if isinstance(each.type, click.IntRange)]


def test_every_option_with_a_number_has_bounds() -> None:
    kinds = (click.types.IntParamType, click.types.FloatParamType)
    numbers = [(path, each.type) for path in ALL for each in ALL[path].params if isinstance(each.type, kinds)]

    assert numbers
    for path, kind in numbers:
        assert isinstance(kind, click.IntRange), path
        assert kind.min is not None, path
        assert kind.max is not None, path
        assert kind.max < 2**53, path


@pytest.mark.parametrize("text", [str(2**63), "-1", "9" * 5000, "1e3", "nan"])
@pytest.mark.parametrize(("path", "option"), NUMBERS, ids=[f"{path} {option.opts[0]}" for path, option in NUMBERS])
def test_a_number_out_of_bounds_is_refused(path: str, option: click.Parameter, text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not in the range|is not a valid integer"):
        option.type.convert(text, option, None)


@pytest.mark.parametrize("kind", [SIZE, SPAN])
@pytest.mark.parametrize("text", [str(2**63), "-1", "9" * 5000, "1e3", "nan", "9" * 30 + "TB", "9" * 30 + "d"])
def test_a_quantity_out_of_bounds_is_refused(kind: Quantity, text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a (size|duration)"):
        kind.convert(text, None, None)
