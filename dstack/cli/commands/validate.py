"""`dstack validate`: check a project's files."""

from __future__ import annotations

import click

from dstack.cli.output import show, words
from dstack.cli.parameters import json_option
from dstack.cli.project import load


@click.command("validate")
@json_option
def command(as_json: bool) -> None:
    """Check the project's files without submitting anything."""
    if as_json:
        project = load(say=lambda warning: None)
        show.document({"valid": True, "workflows": list(project.workflows), "warnings": list(project.warnings)})
        return
    workflows = load().workflows
    show.line(f"valid: {words.count(len(workflows), 'workflow')} ({', '.join(workflows)})")
