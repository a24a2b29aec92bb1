"""Removes data that no run needs from a host: mirrors of repositories, and images that dstack pulled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dstack.commands.command import Command, Result
from dstack.model.runner.host_context import HostContext
from dstack.model.text.untrusted import whole
from dstack.render import script

DIGEST = "{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}"
"""The digest of an image, or its id if it never came from a registry."""


@dataclass(frozen=True)
class Pruned:
    """Bytes that were or would be freed; `forgotten` are image names that no longer refer to what was pulled."""

    mirrors: dict[str, int]
    images: dict[str, int]
    forgotten: tuple[str, ...]


def prune(context: HostContext, mirrors: Sequence[str], images: Mapping[str, str], *, dry_run: bool) -> Command[Pruned]:
    """Remove the mirrors of these repositories, and these images (digests by name, as a launch returns them) unless a
    container uses them or their name now refers to another image. Repeatable."""
    body = script(
        "machine/orphans", context, mirrors=tuple(mirrors), images=tuple(images.items()), digest=DIGEST, dry=dry_run
    )
    return Command("removing unused data", body, _pruned)


def _pruned(result: Result) -> Pruned:
    mirrors, images = ([line.rsplit(" ", 1) for line in result.each(kind)] for kind in ("mirror", "image"))
    return Pruned(
        mirrors={name: whole(size) for name, size in mirrors},
        images={name: whole(size) for name, size in images},
        forgotten=tuple(result.each("forget")),
    )
