"""`dstack hold` and `dstack release`: keep queued jobs from starting, and undo that."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.parameters import REF
from dstack.client.settings import user
from dstack.errors import ConflictError
from dstack.model.api.jobs import HoldRequest

refs_argument = click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, required=True, type=REF)


@click.command("hold")
@refs_argument
def hold(refs: tuple[str, ...]) -> None:
    """Keep queued jobs from starting.

    Held jobs keep their place in the queue until `dstack release`. Running jobs are not affected.
    """
    _change(refs, user())


@click.command("release")
@refs_argument
def release(refs: tuple[str, ...]) -> None:
    """Release held jobs, so that they start when their turn comes."""
    _change(refs, None)


def _change(refs: tuple[str, ...], holder: str | None) -> None:
    """Hold or release, and print the result. Raises ConflictError if there was nothing to change."""
    answer = connect.connect().hold(HoldRequest(refs=refs, user=holder))
    for run in answer.changed:
        show.say(f"{run}: {'held' if holder else 'released'}")
    if answer.unchanged:
        words = "has no queued job to hold" if holder else "has no held job"
        raise ConflictError(f"{answer.unchanged[0]} {words}", hint=f"dstack runs {answer.unchanged[0]}")
