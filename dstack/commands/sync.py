"""What a job that runs has made so far: what is still of one artifact, hashed on the host.

The job may change anything meanwhile, and is hostile. A helper container, which sees the job's folder alone, makes hard
links of what there is to where the job can't reach; only they are looked at and read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dstack.commands.answer import lines
from dstack.commands.collect import dotted, read, want
from dstack.commands.command import Command, Result
from dstack.commands.place import Place, folder_name
from dstack.errors import CommandError
from dstack.model import tree
from dstack.model.manifest import File
from dstack.model.workflow import Artifact
from dstack.render import script, text

SYNCING = "looking at the artifacts of a job that runs"

SMALL = 8 * 1024 * 1024
"""Bytes up to which a file is copied before it is hashed. Of a larger one, what is sent may have changed since."""


@dataclass(frozen=True)
class Changes:
    """`found` is what changed and is still, `same` the paths of what did not change since the time before, `moving`
    those of what is being written."""

    found: tuple[File, ...]
    same: tuple[str, ...]
    moving: tuple[str, ...]


def frozen(number: int) -> str:
    """Where what was found of an artifact lies, below the job's folder."""
    return f"{top(number)}/next"


def top(number: int) -> str:
    """What the syncs of an artifact leave in a job's folder. `number` tells it from the job's others."""
    return f"sync/{number}"


def sync(
    place: Place, attempt: str, project: str, image: str, artifact: Artifact, number: int, *, keep: bool
) -> Command[Changes]:
    """List and hash what changed of an artifact of a running job. With `keep`, what did not change since the time
    before is only named. Raises CommandError where the job's folder is gone."""
    wanted = want((artifact,), "")
    paths = tuple(map(dotted, wanted.paths))
    work = text(
        "sync_work",
        top=top(number),
        project=project,
        path=dotted(tree.normal(artifact.path)),
        keep=keep,
        small=f"-{SMALL // 512 + 1}",
    )
    body = script(
        "sync",
        place,
        folder=place.layout.job(folder_name(attempt)),
        image=image,
        server=place.layout.server,
        top=top(number),
        work=work,
        project="",
        paths=paths,
        roots=paths,
        skipped="-",
        longest=tree.LONGEST + len("./") + 1,
        record=False,
    )
    return Command(SYNCING, body, lambda result: _read(artifact, result))


def _read(artifact: Artifact, result: Result) -> Changes:
    if result.exit_status != 0:
        lines(SYNCING, result)
    rest = result.stdout
    same, rest = _names(b"same", rest)
    moving, rest = _names(b"moving", rest)
    listing = read(want((artifact,), ""), "", Result(0, rest, result.stderr))
    return Changes(listing.files, same, moving)


def _names(key: bytes, data: bytes) -> tuple[tuple[str, ...], bytes]:
    """A list of names at the beginning, and what follows it."""
    head = re.match(key + rb"=(\d+)\n", data)
    end = head.end() + int(head[1]) if head else 0
    if head is None or end > len(data):
        raise CommandError(SYNCING, 0, "the host's answer is not understood")
    names = data[head.end() : end].split(b"\0")[:-1]
    return tuple(name.removeprefix(b"./").decode(errors="surrogateescape") for name in names), data[end:]
