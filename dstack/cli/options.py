"""Options that several commands have, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from dstack.errors import UsageError
from dstack.model.text.units import disk_bytes, lacks_unit, span

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
json_lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: one object per line, the last is the run."
)


class Quantity(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit, which `read` converts."""

    def __init__(self, name: str, read: Callable[[str], float]) -> None:
        self.name = name
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return self.read(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            option = f"{param.opts[0]}: " if param else ""
            raise UsageError(f"{option}{error}") from error


def _size(text: str) -> int:
    count = disk_bytes(text)
    if lacks_unit(text):
        raise ValueError(f"'{text}' has no unit; write a unit, such as {text}MB")
    return count


SIZE = Quantity("size", _size)
"""Such as `500MB` or `2GB`, in bytes."""
SPAN = Quantity("span", span)
"""Such as `30s`, `10m` or `1h30m`, in seconds."""
