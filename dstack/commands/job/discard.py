"""Remove what one attempt left on its host."""

from __future__ import annotations

from dstack.commands.answer import lines
from dstack.commands.command import Command, Result
from dstack.model.paths import container
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.render import script

DISCARDING = "removing the job's folder"


def discard(context: HostContext, attempt: str, image: str) -> Command[None]:
    """Remove the container, running or not, and the job's folder, whoever owns its files. Repeatable."""
    body = script(
        "job/discard",
        context,
        folder=context.layout.job(folder_name(attempt)),
        name=container(attempt),
        image=image,
        server=context.layout.server,
    )
    return Command(DISCARDING, body, _done)


def _done(result: Result) -> None:
    lines(DISCARDING, result)
