"""`dstack validate`: check the project's files."""

from __future__ import annotations

import click

from dstack.cli import project
from dstack.cli.output import show, words


@click.command("validate")
def command() -> None:
    """Check the project's files without submitting anything."""
    loaded = project.load()
    show.line(f"valid: {words.count(len(loaded.workflows), 'workflow')} ({', '.join(loaded.workflows)})")
