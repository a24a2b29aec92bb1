"""Fetches the artifacts of a job's dependencies from object storage straight to its host."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dstack.commands.answer import lines
from dstack.commands.artifacts import curl
from dstack.commands.artifacts.collect import batches, dotted
from dstack.commands.artifacts.listing_parser import hashes
from dstack.commands.command import Command, Result
from dstack.errors import CommandError
from dstack.model.job.manifest import File, shown
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.render import quote, script

GATHERING = "fetching the dependencies' artifacts"

AT_ONCE = 8
"""Simultaneous connections."""
TRIES = 5
"""Retries in a row that fetch no further file, after 1, 2, 4, 8 and 16 seconds."""


def gather(
    context: HostContext, attempt: str, files: Sequence[File], urls: Mapping[str, str], *, beside: bool = False
) -> Command[None]:
    """Fetch files from their URLs to the folder that the launch reads, with their modes and links. With `beside`, keep
    what is already there.

    Raises CommandError if a URL returns nothing, or bytes that differ from the file's.
    """
    regular = [file for file in files if file.link is None]
    packed = curl.archive({**_configs(regular, urls), "finish": _finish(files)})
    folder = context.layout.job(folder_name(attempt))
    body = script(
        "artifacts/fetch_dependencies", context, folder=folder, beside=beside, length=len(packed), tries=TRIES
    )
    return Command(GATHERING, body, lambda result: _gathered(regular, result), packed)


def _configs(files: Sequence[File], urls: Mapping[str, str]) -> dict[str, bytes]:
    """Return curl's configuration for each file, and a share of the files for each connection."""
    packed = {}
    for share in range(min(AT_ONCE, len(files))):
        names, wanted = [], []
        for index, file in list(enumerate(files))[share::AT_ONCE]:
            name, path = f"{index:07}", dotted(file.path)
            options = [("url", urls[file.path]), ("output", path), ("write-out", "%{http_code}\n")]
            packed[f"conf/{name}"] = curl.transfer(options) + b"create-dirs\nfail\n"
            names.append(f"{name}\n")
            wanted.append(f"want {name} {file.size} {quote(path)}\n")
        packed[f"all.{share}"] = "".join(names).encode()
        packed[f"share.{share}"] = "".join(wanted).encode("utf-8", "surrogateescape")
    return packed


def _finish(files: Sequence[File]) -> bytes:
    """Return sh that hashes all files in order, sets their modes and creates the links."""
    regular = [file for file in files if file.link is None]
    said = [f"sums {quote(batch)}\n" for batch in batches([dotted(file.path) for file in regular])]
    for mode in sorted({file.mode for file in regular}):
        paths = [dotted(file.path) for file in regular if file.mode == mode]
        said += [f"chmod {mode & 0o777:o} {quote(batch)}\n" for batch in batches(paths)]
    for file in files:
        if file.link is not None:
            folder = dotted(file.path).rpartition("/")[0]
            said.append(f"mkdir -p {quote(folder)}\nln -s -- {quote(file.link)} {quote(dotted(file.path))}\n")
    said.append("find . -type d -exec chmod 755 {} +\n")
    return "".join(said).encode("utf-8", "surrogateescape")


def _gathered(files: Sequence[File], result: Result) -> None:
    if result.exit_status != 0:
        lines(GATHERING, result)
    found = re.fullmatch(rb"hashes=\d+\n(.*)end=\n", result.stdout, re.DOTALL)
    names = [dotted(file.path).encode("utf-8", "surrogateescape") for file in files]
    try:
        sums = hashes(found[1] if found else b"?", names)
    except ValueError as error:
        raise CommandError(GATHERING, 0, f"the host's answer can't be parsed: {error}") from error
    for file in files:
        if sums.get(file.path) != file.sha256:
            raise CommandError(GATHERING, 0, f"{shown(file.path)} differs from what was stored")
