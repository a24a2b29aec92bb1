"""Lists and hashes the files of an artifact that a running job is not writing to.

The job is untrusted, and may change files at any time. A helper container, which sees only the job's folder, creates
hard links to the files where the job can't reach them; only these links are read.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from dstack.commands.artifacts.collect import Wanted, dotted, read, want
from dstack.commands.command import LISTS, Command, Result
from dstack.model.job.manifest import LONGEST, File, Folder, normal
from dstack.model.paths import CONTAINER_TREE
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.render import script, text

SMALL = 8 * 1024 * 1024
"""Files up to this many bytes are copied before they are hashed. A larger file may change before it is sent."""


@dataclass(frozen=True)
class Changes:
    """`found` are files that changed, `same` the paths of unchanged files, `moving` of files that are being written.
    `folders` are all folders of the artifact."""

    found: tuple[File, ...]
    same: tuple[str, ...]
    moving: tuple[str, ...]
    folders: tuple[Folder, ...] = ()


def frozen(number: int) -> str:
    """Return the folder of an artifact's found files, below the job's folder. `number` identifies the artifact."""
    return f"sync/{number}/next"


def sync(
    context: HostContext, attempt: str, project: str, image: str, artifact: Artifact, number: int, *, keep: bool
) -> Command[Changes]:
    """List and hash the changed files of a running job's artifact. With `keep`, files unchanged since the last sync are
    only named. Raises CommandError if the job's folder is gone."""
    top = f"sync/{number}"
    wanted = want((artifact,), "")
    paths = tuple(map(dotted, wanted.paths))
    work = text(
        "artifacts/sync_work",
        top=top,
        project=project,
        path=dotted(normal(artifact.path)),
        keep=keep,
        small=f"-{SMALL // 512 + 1}",
    )
    body = script(
        "artifacts/sync",
        context,
        attempt,
        image=image,
        top=top,
        work=work,
        project="",
        paths=paths,
        roots=paths,
        skipped="-",
        longest=LONGEST + len("./") + 1,
        record=False,
    )
    tree = posixpath.join(CONTAINER_TREE, project)
    return Command("syncing an artifact", body, lambda result: _read(wanted, tree, result), most=LISTS)


def _read(wanted: Wanted, tree: str, result: Result) -> Changes:
    same, rest = _names(b"same", result.stdout)
    moving, rest = _names(b"moving", rest)
    listing = read(wanted, "", tree, Result(0, rest, b""))
    return Changes(listing.files, same, moving, listing.folders)


def _names(key: bytes, data: bytes) -> tuple[tuple[str, ...], bytes]:
    """Parse a list of names at the start of the data. Returns it and the rest."""
    head = re.match(key + rb"=([0-9]{1,15})\n", data)
    end = head.end() + int(head[1]) if head else 0
    if head is None or end > len(data):
        raise ValueError(f"{data[:100]!r}")
    names = data[head.end() : end].split(b"\0")[:-1]
    return tuple(name.removeprefix(b"./").decode(errors="surrogateescape") for name in names), data[end:]
