"""Fetches the artifacts of a job's dependencies from object storage straight to its host."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dstack.commands.artifacts import curl
from dstack.commands.artifacts.collect import dotted, line, on_files
from dstack.commands.artifacts.listing_parser import hashes
from dstack.commands.command import LISTS, Command, Result
from dstack.errors import CommandError
from dstack.model.job.manifest import File, shown
from dstack.model.runner.host_context import HostContext
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
    what is already there. Raises CommandError if a URL returns nothing, or bytes that differ from the file's."""
    regular = [file for file in files if file.link is None]
    packed = curl.archive({**_configs(regular, urls), "finish": _finish(files)})
    body = script("artifacts/fetch_dependencies", context, attempt, beside=beside, length=len(packed), tries=TRIES)
    return Command(GATHERING, body, lambda result: _gathered(regular, result), packed, most=LISTS)


def _configs(files: Sequence[File], urls: Mapping[str, str]) -> dict[str, bytes]:
    """Return curl's configuration for each file, and a share of the files for each connection."""
    packed = {}
    for share in range(min(AT_ONCE, len(files))):
        wanted: dict[str, bytes] = {}
        for index, file in list(enumerate(files))[share::AT_ONCE]:
            name, path = f"{index:07}", dotted(file.path)
            options = [("url", urls[file.path]), ("output", path), ("write-out", "%{http_code}\n")]
            packed[f"conf/{name}"] = curl.transfer(options) + b"create-dirs\nfail\n"
            wanted[name] = line("want", name, str(file.size), quote(path))
        packed[f"all.{share}"] = b"".join(map(line, wanted))
        packed[f"share.{share}"] = b"".join(wanted.values())
    return packed


def _finish(files: Sequence[File]) -> bytes:
    """Return sh that hashes all files in order, sets their modes and creates the links."""
    regular = [file for file in files if file.link is None]
    lines = [*on_files("sums", regular)]
    for mode in sorted({file.mode for file in regular}):
        lines += on_files(f"chmod {mode & 0o777:o}", [file for file in regular if file.mode == mode])
    for file in files:
        if file.link is not None:
            path = dotted(file.path)
            lines.append(line("mkdir -p", quote(path.rpartition("/")[0])))
            lines.append(line("ln -s --", quote(file.link), quote(path)))
    lines.append(line("find . -type d -exec chmod 755 {} +"))
    return b"".join(lines)


def _gathered(files: Sequence[File], result: Result) -> None:
    found = re.fullmatch(rb"hashes=\d+\n(.*)end=\n", result.stdout, re.DOTALL)
    sums = hashes(found[1] if found else b"?", [dotted(file.path) for file in files])
    for file in files:
        if sums.get(file.path) != file.sha256:
            raise CommandError(GATHERING, 0, f"{shown(file.path)} differs from what was stored")
