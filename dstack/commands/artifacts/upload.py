"""Uploads a job's artifacts from its host straight to object storage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from dstack.commands.answer import lines
from dstack.commands.artifacts import curl
from dstack.commands.artifacts.collect import batches, dotted
from dstack.commands.artifacts.listing_parser import hashes
from dstack.commands.command import Command, Result, succeeded
from dstack.errors import CommandError
from dstack.model.job.manifest import File, shown
from dstack.model.job.pieces import MIB, Piece, Sums, part_size, spans
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.render import quote, script, text

SUMMING = "checksumming the artifacts"
UPLOADING = "uploading the artifacts"
ABANDONING = "canceling the upload"
REACHING = "reaching the storage"

AT_ONCE = 8
"""Connections of one upload."""
SMALL = 1 << 20
"""Bytes that are sent without `Expect: 100-continue`. With it, S3 refuses a large body before it is sent. Otherwise S3
breaks the connection, and its answer may be lost."""
WAIT = 5
"""Seconds that one query of an upload waits for its end. Progress is reported this often."""


@dataclass(frozen=True)
class Upload:
    """An upload's progress. `other`: it was started earlier, with a plan that is no longer known. `sent` holds indexes
    of the plan's pieces; `refused`, known at the end, maps indexes to S3's status, 0 for none."""

    running: bool
    other: bool = False
    sent: frozenset[int] = frozenset()
    refused: dict[int, int] = field(default_factory=dict)
    trouble: str = ""


def sums(context: HostContext, attempt: str, tree: str, files: Sequence[File]) -> Command[dict[str, Sums]]:
    """Return the MD5s of regular files by path: of the whole file, or of each part. `tree` is their folder, below the
    job's folder.

    Raises CommandError if a file differs from the list.
    """
    whole = [file for file in files if len(spans(file.size)) == 1]
    large = [file for file in files if len(spans(file.size)) > 1]
    said = [f"whole {quote(batch)}\n" for batch in batches([dotted(file.path) for file in whole])]
    said += [
        f"parts {part_size(file.size) // MIB} {len(spans(file.size))} {quote(dotted(file.path))}\n" for file in large
    ]
    stdin = "".join(said).encode("utf-8", "surrogateescape")
    body = script(
        "artifacts/sums", context, folder=context.layout.job(folder_name(attempt)), tree=tree, length=len(stdin)
    )
    return Command(SUMMING, body, lambda result: _summed(whole, large, result), stdin)


def upload(context: HostContext, attempt: str, tree: str, pieces: Sequence[Piece]) -> Command[Upload]:
    """Start to upload these, unless an upload is in progress; then wait a while for its end. It continues by itself."""
    return _upload(context, attempt, tree, plan(pieces))


def uploading(context: HostContext, attempt: str) -> Command[Upload]:
    """Wait a while for the end of the current upload."""
    return _upload(context, attempt, "", b"")


def abandon(context: HostContext, attempt: str) -> Command[None]:
    """Cancel the current upload."""
    body = script("artifacts/abandon", context, folder=context.layout.job(folder_name(attempt)))
    return Command(ABANDONING, body, lambda result: succeeded(ABANDONING, result))


def reach(context: HostContext, url: str) -> Command[None]:
    """Check that the host gets an answer from a URL. Raises CommandError with curl's message if it gets none."""
    stdin = curl.transfer([("url", url), ("output", "/dev/null")]).partition(b"\n")[2]
    body = script("artifacts/reach", context, length=len(stdin))
    return Command(REACHING, body, lambda result: succeeded(REACHING, result), stdin)


def plan(pieces: Sequence[Piece]) -> bytes:
    """Return a tar with the worker's tasks."""
    if not pieces:
        return b""
    named = {f"{index:07}": piece for index, piece in enumerate(pieces)}
    files = {"pieces": "".join(f"{name}\n" for name in named).encode()}
    for name, piece in named.items():
        options = [("url", piece.url), ("output", "/dev/null"), ("write-out", f"{name} %{{http_code}}\n")]
        expect = "100-continue" if piece.length > SMALL else ""
        options += [("header", f"{key}: {value}") for key, value in (*piece.headers, ("Expect", expect))]
        if piece.part is None:
            files[f"conf/{name}"] = curl.transfer([*options, ("upload-file", dotted(piece.path))])
            continue
        # Read from a pipe, whose length curl can't know: S3 does not accept chunked uploads.
        options += [("header", f"Content-Length: {piece.length}"), ("header", "Transfer-Encoding:")]
        files[f"conf/{name}"] = curl.transfer([*options, ("upload-file", "-")]).partition(b"\n")[2]
        span = f"skip={piece.start // MIB} count={-(-piece.length // MIB)} path={quote(dotted(piece.path))}\n"
        files[f"part/{name}"] = span.encode("utf-8", "surrogateescape")
    return curl.archive(files)


def work() -> str:
    """Return the script that uploads in a process of its own."""
    return text("artifacts/upload_work", at_once=AT_ONCE)


def _upload(context: HostContext, attempt: str, tree: str, stdin: bytes) -> Command[Upload]:
    body = script(
        "artifacts/upload",
        context,
        folder=context.layout.job(folder_name(attempt)),
        tree=tree,
        work=work(),
        seconds=WAIT,
        length=len(stdin),
    )
    return Command(UPLOADING, body, _uploaded, stdin)


def _uploaded(result: Result) -> Upload:
    said = lines(UPLOADING, result)
    refused = [value.partition(" ") for key, value in said if key == "refused"]
    try:
        return Upload(
            running=("running", "yes") in said,
            other=("other", "yes") in said,
            sent=frozenset(int(value) for key, value in said if key == "sent"),
            refused={int(piece): int(code) for piece, _, code in refused},
            trouble="".join(value for key, value in said if key == "trouble")[:500],
        )
    except ValueError as error:
        raise CommandError(UPLOADING, 0, f"the host's answer can't be parsed: {error}") from error


def _summed(whole: Sequence[File], large: Sequence[File], result: Result) -> dict[str, Sums]:
    if result.exit_status != 0:
        lines(SUMMING, result)
    found = re.fullmatch(rb"whole=(\d+)\n(.*)", result.stdout, re.DOTALL)
    size = int(found[1]) if found else 0
    rest = re.fullmatch(rb"parts=\d+\n([0-9a-f\n]*)end=\n", found[2][size:], re.DOTALL) if found else None
    if found is None or rest is None:
        raise CommandError(SUMMING, result.exit_status, "the host's answer can't be parsed")
    names = [dotted(file.path).encode("utf-8", "surrogateescape") for file in whole]
    try:
        md5s = hashes(found[2][:size], names)
    except ValueError as error:
        raise CommandError(SUMMING, result.exit_status, f"the host's answer can't be parsed: {error}") from error
    made = {path: Sums((md5,)) for path, md5 in md5s.items()}
    words = iter(rest[1].decode().split())
    for file in large:
        parts = tuple(next(words, "") for _ in spans(file.size))
        if next(words, "") == file.sha256:
            made[file.path] = Sums(parts)
    for file in (*whole, *large):
        if file.path not in made:
            raise CommandError(SUMMING, 0, f"{shown(file.path)} changed since it was listed, or can't be read")
    return made
