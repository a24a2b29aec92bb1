"""`dstack wait`: wait for the end of a run."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.follow import to_the_end
from dstack.cli.output.displays import Display, JsonEvents
from dstack.cli.output.progress import ProgressLines
from dstack.cli.parameters import REF, json_lines_option, run_of


@click.command("wait")
@click.argument("run", type=REF)
@json_lines_option
@click.option("-q", "--quiet", is_flag=True, help="Print nothing unless the run fails.")
def command(run: str, as_json: bool, quiet: bool) -> int:
    """Wait until a run ends, and exit as `dstack run` would."""
    client = connect.connect()
    current = run_of(client, run)
    narrator = ProgressLines(current.jobs, None, named=current.workflow, quiet=quiet)
    display: Display = JsonEvents() if as_json else narrator
    if not as_json and not current.status.finished:
        narrator.begin()
    return to_the_end(client, current.name, display, logs=False, asks=False)
