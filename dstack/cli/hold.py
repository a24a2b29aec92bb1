"""`dstack hold` and `dstack release`: keep queued jobs from starting, and let them go."""

from __future__ import annotations

import click

from dstack.cli import settings, show
from dstack.cli.lookup import REF
from dstack.cli.run import user
from dstack.errors import ConflictError
from dstack.model.api.runs import HoldRequest


@click.command("hold")
@click.argument("refs", metavar="RUN_OR_JOB...", nargs=-1, required=True, type=REF)
def command(refs: tuple[str, ...]) -> None:
    """Keep queued jobs from starting.

    They keep their place in the queue; `dstack release` lets them go. What runs already is left alone.
    """
    change(refs, user())


def change(refs: tuple[str, ...], holder: str | None) -> None:
    """Hold or release, and say what came of it. Raises ConflictError where nothing was there to change."""
    answer = settings.connect().hold(HoldRequest(refs=refs, user=holder))
    for run in answer.changed:
        show.say(f"{run}: {'held' if holder else 'released'}")
    if answer.unchanged:
        words = "has no queued job that is not held" if holder else "has no held job"
        raise ConflictError(f"{answer.unchanged[0]} {words}", hint=f"dstack runs {answer.unchanged[0]}")
