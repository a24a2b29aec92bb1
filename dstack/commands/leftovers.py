"""What lies on a host that no run needs: mirrors of repositories, and images that dstack pulled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dstack.commands.answer import lines
from dstack.commands.command import Command, Result
from dstack.commands.place import Place
from dstack.errors import CommandError
from dstack.render import script

DIGEST = "{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}"
"""The digest of an image, its id where it never came from a registry."""
PRUNING = "removing what no run needs"


@dataclass(frozen=True)
class Pruned:
    """Bytes that became free, or would, by repository and by image; `forgotten` are images that are not the ones that
    were pulled."""

    mirrors: dict[str, int]
    images: dict[str, int]
    forgotten: tuple[str, ...]


def prune(place: Place, mirrors: Sequence[str], images: Mapping[str, str], *, dry_run: bool) -> Command[Pruned]:
    """Remove the mirrors of these repositories, and these images (digests by name, as a launch answers them) unless a
    container has them, or another image has their name by now. Repeatable."""
    body = script("leftovers", place, mirrors=tuple(mirrors), images=tuple(images.items()), digest=DIGEST, dry=dry_run)
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
        raise CommandError(PRUNING, 0, f"the host's answer is not understood: {problem}") from problem
