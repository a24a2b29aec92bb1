"""`dstack runners set`: what an owner says of a machine, after it was added."""

from __future__ import annotations

import click
from msgspec.structs import replace

from dstack.cli import machine, settings
from dstack.cli.lookup import RUNNER
from dstack.errors import NotFoundError, UsageError


@click.command("set")
@click.argument("name", type=RUNNER)
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="All its labels; '' for none.")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="How many GPUs jobs may get.")
@click.option(
    "--allow-mount",
    "allow_mounts",
    multiple=True,
    metavar="DIR",
    help="All folders that jobs may mount; '' for none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def set_(name: str, as_json: bool, **options: object) -> int:
    """Change what was said of a machine when it was added.

    Jobs that run there go on as they are. What comes from an inventory is as the file says after the next import.
    """
    said = {option: value for option, value in options.items() if value not in ((), None)}
    if not said:
        raise UsageError("nothing is to be changed", hint="say what: dstack runners set --help")
    client = settings.connect()
    known = next((runner.definition for runner in client.runners() if runner.name == name), None)
    if known is None:
        raise NotFoundError(f"no runner '{name}'", hint="dstack runners")
    changes = {
        option: tuple(text for text in value if text) if isinstance(value, tuple) else value
        for option, value in said.items()
    }
    return machine.report(client.change_runner(name, replace(known, **changes)), as_json)
