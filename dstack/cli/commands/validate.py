"""`dstack validate`: check a project's files."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.project import load
from dstack.errors import ProjectError


@click.command("validate")
def command() -> None:
    """Check the project's files without submitting anything."""
    project = load()
    for note in project.notes:
        connect.warn(f"warning: {note}")
    if project.problems:
        raise ProjectError(
            project.problems, hint="change the value in configs.yaml, or give another one to `dstack run`"
        )
    workflows = project.workflows
    show.line(f"valid: {words.count(len(workflows), 'workflow')} ({', '.join(workflows)})")
