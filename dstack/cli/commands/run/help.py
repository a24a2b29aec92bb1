"""`dstack run --help` and `dstack run WORKFLOW --help`: help about this project."""

from __future__ import annotations

import click

from dstack.cli import project
from dstack.cli.project import LoadedProject
from dstack.errors import UsageError
from dstack.model.project.graph import closure


def show_help(ctx: click.Context, command: click.Command, workflow: str | None, loaded: LoadedProject | None) -> None:
    """Print the options and workflows, or the variables of one workflow. `loaded` is the project, if it was read."""
    if workflow is not None:
        _workflow(ctx, loaded or project.load(), workflow)
        return
    click.echo(command.get_help(ctx))
    try:
        loaded = project.load()
    except UsageError as error:
        click.echo(f"\nWorkflows: none found; {error.message}")
        return
    formatter = ctx.make_formatter()
    with formatter.section("Workflows"):
        formatter.write_dl([(each.name, each.help or "") for each in loaded.workflows.values()])
    click.echo("\n" + formatter.getvalue().rstrip())
    click.echo("\n`dstack run WORKFLOW --help` lists its variables.")


def _workflow(ctx: click.Context, loaded: LoadedProject, name: str) -> None:
    workflow = closure(loaded.workflows, name)[-1]
    formatter = ctx.make_formatter()
    formatter.write_usage(ctx.command_path, f"[OPTIONS] {name} [--VARIABLE VALUE]...")
    if workflow.help:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(workflow.help)
    values = loaded.values(name)
    if values:
        with formatter.section("Variables"):
            formatter.write_dl([(f"--{key} [{key.upper()}]", _default(value)) for key, value in values.items()])
    else:
        formatter.write_paragraph()
        formatter.write_text("This workflow has no variables.")
    click.echo(formatter.getvalue().rstrip())
    click.echo("\n`dstack run --help` lists the options.")


def _default(value: str | None) -> str:
    return "default: null" if value is None else f"default: {value}" if value else "default: empty"
