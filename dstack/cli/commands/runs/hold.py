"""`dstack hold` and `dstack release`: keep queued jobs from starting, and undo that."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.parameters import REF, json_option
from dstack.client.settings import user
from dstack.errors import ConflictError
from dstack.model.api.jobs import HoldRequest

refs_argument = click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, required=True, type=REF)


@click.command("hold")
@refs_argument
@json_option
def hold(refs: tuple[str, ...], as_json: bool) -> None:
    """Keep queued jobs from starting.

    Held jobs keep their place in the queue until `dstack release`. Running jobs are not affected.
    """
    _change(refs, user(), as_json=as_json)


@click.command("release")
@refs_argument
@json_option
def release(refs: tuple[str, ...], as_json: bool) -> None:
    """Release held jobs, so that they start when their turn comes."""
    _change(refs, None, as_json=as_json)


def _change(refs: tuple[str, ...], holder: str | None, *, as_json: bool) -> None:
    """Hold or release, and print the result. Raises ConflictError if there was nothing to change."""
    client = connect.connect()
    answer = client.hold(HoldRequest(refs=refs, user=holder))
    if as_json:
        show.document([client.run(run) for run in answer.changed])
    for run in answer.changed if not as_json else ():
        show.say(f"{run}: {'held' if holder else 'released'}")
    if answer.unchanged:
        words = "has no queued job to hold" if holder else "has no held job"
        raise ConflictError(f"{answer.unchanged[0]} {words}", hint=f"dstack runs {answer.unchanged[0]}")
