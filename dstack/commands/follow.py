"""A job's log, byte for byte."""

from __future__ import annotations

from dstack.commands.command import Command, Result, succeeded
from dstack.commands.place import Place, folder_name
from dstack.model.paths import container
from dstack.render import script


def follow(place: Place, attempt: str, offset: int) -> Command[bytes]:
    """Print the log's bytes from `offset` on, as they come, until the job has ended or stdin has.

    It may end before it has printed everything: what is left is for `read_log`, once the job is known to have ended.
    """
    return _command("following the log", "follow", place, attempt, offset)


def read_log(place: Place, attempt: str, offset: int) -> Command[bytes]:
    """Print the log's bytes from `offset` to where it ends now. A log that was removed has none."""
    return _command("reading the log", "read_log", place, attempt, offset)


def _command(name: str, template: str, place: Place, attempt: str, offset: int) -> Command[bytes]:
    if offset < 0:
        raise ValueError(f"a log has no byte {offset}")

    def read(result: Result) -> bytes:
        succeeded(name, result)
        return result.stdout

    values = {"folder": place.layout.job(folder_name(attempt)), "name": container(attempt), "first": offset + 1}
    return Command(name, script(template, place, **values), read)
