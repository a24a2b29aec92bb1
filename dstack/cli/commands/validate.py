"""`dstack validate`: check the project's files."""

from __future__ import annotations

import click

from dstack.cli import project
from dstack.cli.output import show


@click.command("validate")
def command() -> None:
    """Check the project's files without submitting anything."""
    loaded = project.load()
    names = ", ".join(loaded.workflows)
    count = len(loaded.workflows)
    show.line(f"valid: {count} {'workflow' if count == 1 else 'workflows'} ({names})")
