"""`dstack validate`: check the project's files."""

from __future__ import annotations

import click

from dstack.cli import project
from dstack.cli.output import show


@click.command("validate")
def command() -> None:
    """Check the project's files without submitting anything."""
    found = project.load()
    names = ", ".join(found.workflows)
    count = len(found.workflows)
    show.line(f"valid: {count} {'workflow' if count == 1 else 'workflows'} ({names})")
