"""The `dstack` group: imports a command when it is called, and turns every outcome into an exit code."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from dstack import __version__
from dstack.cli.output import failure, show
from dstack.cli.output.screen import SCREEN
from dstack.cli.parameters import Noun
from dstack.errors import UsageError

COMMANDS = {
    "run": "run.command:command",
    "init": "init:command",
    "validate": "validate:command",
    "runs": "runs.command:command",
    "jobs": "runs.command:jobs",
    "logs": "runs.logs:command",
    "attach": "runs.attach:command",
    "exec": "runs.exec:command",
    "stop": "runs.stop:command",
    "hold": "runs.hold:hold",
    "release": "runs.hold:release",
    "wait": "runs.wait:command",
    "why": "runs.why:command",
    "usage": "usage:command",
    "events": "runs.events:command",
    "artifacts": "results.artifacts:command",
    "metrics": "results.metrics:command",
    "compare": "results.compare:command",
    "sweep": "sweep.show:command",
    "tag": "results.tag:command",
    "triggers": "triggers.command:command",
    "prune": "prune:command",
    "runners": "runners.command:command",
    "secrets": "secrets:command",
    "notify": "notify:command",
    "config": "config:command",
    "ui": "ui:command",
    "server": "server.command:command",
    "completion": "completion:command",
}
"""In the order in which a new user needs them."""

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Root(Noun):
    """Imports the module of a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"dstack.cli.commands.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in COMMANDS:
            from dstack.cli.foreign_commands import answer

            raise answer(args, list(COMMANDS))
        return super().resolve_command(ctx, args)


@click.group(cls=Root, context_settings=HELP, invoke_without_command=True, subcommand_metavar="COMMAND [ARGS]...")
@click.version_option(__version__, "--version", message="dstack %(version)s", help="Show the version and exit.")
@click.pass_context
def dstack(ctx: click.Context) -> None:
    """Run ML workflows on machines that you can reach over SSH.

    A project is a folder with .dstack/workflows.yaml. `dstack init` creates one, and `dstack run --help` lists its
    workflows.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        say_what_is_missing()


def say_what_is_missing() -> None:
    """Say what to do in a folder without a project."""
    from dstack.cli import project

    try:
        project.find_root()
    except UsageError as missing:
        show.say(f"\nThis folder has no project: {missing.message}.\nTo create one: dstack init")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors are printed, not raised."""
    show.prepare()
    if "_DSTACK_COMPLETE" in os.environ:
        return complete(arguments)
    try:
        with dstack.make_context("dstack", list(arguments)) as ctx:
            result = dstack.invoke(ctx)
        SCREEN.close()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as error:
        SCREEN.close()
        # The command line may be too wrong to be parsed.
        options = itertools.takewhile(lambda word: word != "--", arguments)
        return failure.report(error, as_json="--json" in options, arguments=arguments)


def complete(arguments: Sequence[str]) -> int:
    """Print what completes the words in `COMP_WORDS`. Whatever fails completes nothing: somebody is typing."""
    with suppress(Exception):
        dstack.main(list(arguments), "dstack", "_DSTACK_COMPLETE")
    return 0
