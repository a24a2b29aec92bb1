"""`dstack run --help`, `dstack run WORKFLOW --help` and completion: help about this project."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from dstack.cli import project
from dstack.cli.commands.run.arguments import default_words
from dstack.cli.output import show
from dstack.errors import DstackError, UsageError
from dstack.model.project.environment import RESERVED
from dstack.model.project.graph import closure

if TYPE_CHECKING:
    from dstack.model.project.project import Project


def show_help(ctx: click.Context, command: click.Command) -> None:
    """Print the options and the workflows of the current folder's project."""
    click.echo(command.get_help(ctx))
    try:
        loaded = project.load()
    except UsageError as error:
        click.echo(show.clean(f"\nWorkflows: none found; {error.message}"))
        return
    formatter = ctx.make_formatter()
    with formatter.section("Workflows"):
        formatter.write_dl([(each.name, each.help or "") for each in loaded.workflows.values()])
    click.echo(show.clean("\n" + formatter.getvalue().rstrip()))
    click.echo(f"\n`{ctx.command_path} WORKFLOW --help` lists its variables.")


def show_workflow(ctx: click.Context, loaded: Project, name: str) -> None:
    """Print what one workflow does, and its variables."""
    workflow = closure(loaded.workflows, name)[-1]
    formatter = ctx.make_formatter()
    formatter.write_usage(ctx.command_path, f"[OPTIONS] {name} [--VARIABLE VALUE]...")
    if workflow.help:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(workflow.help)
    if values := {key: value for key, value in project.values(loaded, name).items() if key not in RESERVED}:
        with formatter.section("Variables"):
            formatter.write_dl(
                [
                    (f"{_option(key)} [{key.upper()}]", f"default: {default_words(value)}")
                    for key, value in values.items()
                ]
            )
    else:
        formatter.write_paragraph()
        formatter.write_text("This workflow has no variables.")
    click.echo(show.clean(formatter.getvalue().rstrip()))
    click.echo(f"\n`{ctx.command_path} --help` lists the options.")


def _option(name: str) -> str:
    return "--help=VALUE" if name == "help" else f"--{name}"


def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Complete workflows and, after a workflow, its variables."""
    try:
        loaded = project.load(say=lambda warning: None)
    except DstackError:
        return []
    named = next((word for word in ctx.args if word in loaded.workflows), None)
    if named is None:
        fitting = [each for each in loaded.workflows.values() if each.name.startswith(incomplete)]
        return [CompletionItem(each.name, help=show.clean(each.help or "").partition("\n")[0]) for each in fitting]
    names = [f"--{name}" for name in project.values(loaded, named) if name not in RESERVED]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
