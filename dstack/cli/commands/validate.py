"""`dstack validate`: check a project's files."""

from __future__ import annotations

import click

from dstack.cli.output import show, words
from dstack.cli.project import load


@click.command("validate")
def command() -> None:
    """Check the project's files without submitting anything."""
    workflows = load().workflows
    show.line(f"valid: {words.count(len(workflows), 'workflow')} ({', '.join(workflows)})")
