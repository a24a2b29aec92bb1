"""`dstack release`: let held jobs start."""

from __future__ import annotations

import click

from dstack.cli.commands.hold import change
from dstack.cli.names import REF


@click.command("release")
@click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, required=True, type=REF)
def command(refs: tuple[str, ...]) -> None:
    """Release held jobs, so that they start when their turn comes."""
    change(refs, None)
