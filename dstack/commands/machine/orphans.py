"""Removes data that no run needs from a host: mirrors of repositories, and images that dstack pulled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dstack.commands.answer import lines
from dstack.commands.command import Command, Result
from dstack.errors import CommandError
from dstack.model.runner.host_context import HostContext
from dstack.render import script

DIGEST = "{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}"
"""The digest of an image, or its id if it never came from a registry."""
PRUNING = "removing unused data"


@dataclass(frozen=True)
class Pruned:
    """Bytes that were or would be freed, by repository and by image; `forgotten` are image names that no longer refer
    to what was pulled."""

    mirrors: dict[str, int]
    images: dict[str, int]
    forgotten: tuple[str, ...]


def prune(context: HostContext, mirrors: Sequence[str], images: Mapping[str, str], *, dry_run: bool) -> Command[Pruned]:
    """Remove the mirrors of these repositories, and these images (digests by name, as a launch returns them) unless a
    container uses them or their name now refers to another image. Repeatable."""
    body = script(
        "machine/orphans", context, mirrors=tuple(mirrors), images=tuple(images.items()), digest=DIGEST, dry=dry_run
    )
    return Command(PRUNING, body, _pruned)


def _pruned(result: Result) -> Pruned:
    said = lines(PRUNING, result)
    try:
        sizes = [(key, *value.rsplit(" ", 1)) for key, value in said if key != "forget"]
        return Pruned(
            mirrors={name: int(size) for key, name, size in sizes if key == "mirror"},
            images={name: int(size) for key, name, size in sizes if key == "image"},
            forgotten=tuple(value for key, value in said if key == "forget"),
        )
    except ValueError as problem:
        raise CommandError(PRUNING, 0, f"the host's answer can't be parsed: {problem}") from problem
