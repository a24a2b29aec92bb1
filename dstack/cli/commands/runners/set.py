"""`dstack runners set`: change a runner's settings."""

from __future__ import annotations

import click
from msgspec.structs import replace

from dstack.cli import connect
from dstack.cli.names import RUNNER
from dstack.cli.options import json_option
from dstack.cli.output import runners
from dstack.errors import NotFoundError, UsageError


@click.command("set")
@click.argument("name", type=RUNNER)
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="New labels, replacing all; '' for none; repeatable."
)
@click.option("--gpus", type=click.IntRange(0, 1024), metavar="N", help="How many GPUs jobs may use.")
@click.option(
    "--allow-mount",
    "allow_mounts",
    multiple=True,
    metavar="DIR",
    help="Folders that jobs may mount, replacing all; '' for none; repeatable.",
)
@json_option
def set_(name: str, as_json: bool, **options: object) -> int:
    """Change a runner's settings.

    Running jobs are not affected. If the runner comes from an inventory, the next import restores the file's settings.
    """
    given = {option: value for option, value in options.items() if value not in ((), None)}
    if not given:
        raise UsageError("nothing to change; give at least one option", hint="dstack runners set --help")
    client = connect.connect()
    definition = next((runner.definition for runner in client.runners() if runner.name == name), None)
    if definition is None:
        raise NotFoundError(f"no runner '{name}'", hint="dstack runners")
    changes = {
        option: tuple(text for text in value if text) if isinstance(value, tuple) else value
        for option, value in given.items()
    }
    return runners.report(client.change_runner(name, replace(definition, **changes)), as_json)
