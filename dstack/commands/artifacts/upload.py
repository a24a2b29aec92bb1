"""Uploads a job's artifacts from its host straight to object storage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from dstack.commands.artifacts import curl
from dstack.commands.artifacts.collect import dotted, line, on_files
from dstack.commands.artifacts.listing_parser import hashes
from dstack.commands.command import LISTS, Command, Result, done
from dstack.errors import CommandError
from dstack.model.job.manifest import File, shown
from dstack.model.job.pieces import MIB, Piece, Sums, part_size, spans
from dstack.model.runner.host_context import HostContext
from dstack.model.text.untrusted import whole
from dstack.render import quote, script, text

SUMMING = "checksumming the artifacts"

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
    """Return the MD5s of regular files below `tree`, in the job's folder, by path: of the whole file, or of each part.
    Raises CommandError if a file differs from the list."""
    single = [file for file in files if len(spans(file.size)) == 1]
    large = [file for file in files if len(spans(file.size)) > 1]
    lines = [*on_files("whole", single)]
    for file in large:
        megabytes, count = part_size(file.size) // MIB, len(spans(file.size))
        lines.append(line("parts", str(megabytes), str(count), quote(dotted(file.path))))
    stdin = b"".join(lines)
    body = script("artifacts/sums", context, attempt, tree=tree, length=len(stdin))
    return Command(SUMMING, body, lambda result: _summed(single, large, result), stdin, most=LISTS)


def upload(context: HostContext, attempt: str, tree: str = "", pieces: Sequence[Piece] = ()) -> Command[Upload]:
    """Start to upload these, unless an upload is in progress; then wait a while for its end. It continues by itself.
    Without pieces, only wait for the current upload."""
    work = text("artifacts/upload_work", at_once=AT_ONCE)
    stdin = plan(pieces) if pieces else b""
    body = script("artifacts/upload", context, attempt, tree=tree, work=work, seconds=WAIT, length=len(stdin))
    return Command("uploading the artifacts", body, _uploaded, stdin, most=LISTS)


def abandon(context: HostContext, attempt: str) -> Command[None]:
    """Cancel the current upload."""
    return Command("canceling the upload", script("artifacts/abandon", context, attempt), done)


def reach(context: HostContext, url: str) -> Command[None]:
    """Check that the host gets an answer from a URL. Raises CommandError with curl's message if it gets none."""
    stdin = curl.transfer([("url", url), ("output", "/dev/null")], first=True)
    return Command("reaching the storage", script("artifacts/reach", context, length=len(stdin)), done, stdin)


def plan(pieces: Sequence[Piece]) -> bytes:
    """Return a tar with the worker's tasks."""
    named = {f"{index:07}": piece for index, piece in enumerate(pieces)}
    files = {"pieces": b"".join(map(line, named))}
    for name, piece in named.items():
        options = [("url", piece.url), ("output", "/dev/null"), ("write-out", f"{name} %{{http_code}}\n")]
        expect = "100-continue" if piece.length > SMALL else ""
        options += [("header", f"{key}: {value}") for key, value in (*piece.headers, ("Expect", expect))]
        if piece.part is None:
            files[f"conf/{name}"] = curl.transfer([*options, ("upload-file", dotted(piece.path))])
            continue
        # Read from a pipe, whose length curl can't know: S3 does not accept chunked uploads.
        options += [("header", f"Content-Length: {piece.length}"), ("header", "Transfer-Encoding:")]
        files[f"conf/{name}"] = curl.transfer([*options, ("upload-file", "-")], first=True)
        span = f"skip={piece.start // MIB} count={-(-piece.length // MIB)} path={quote(dotted(piece.path))}"
        files[f"part/{name}"] = line(span)
    return curl.archive(files)


def _uploaded(result: Result) -> Upload:
    refused = [answer.partition(" ") for answer in result.each("refused")]
    return Upload(
        running=result.each("running") == ["yes"],
        other=result.each("other") == ["yes"],
        sent=frozenset(map(whole, result.each("sent"))),
        refused={whole(piece): whole(code) for piece, _, code in refused},
        trouble="".join(result.each("trouble"))[:500],
    )


def _summed(single: Sequence[File], large: Sequence[File], result: Result) -> dict[str, Sums]:
    found = re.fullmatch(rb"whole=([0-9]{1,15})\n(.*)", result.stdout, re.DOTALL)
    size = int(found[1]) if found else 0
    rest = re.fullmatch(rb"parts=\d+\n([0-9a-f\n]*)end=\n", found[2][size:], re.DOTALL) if found else None
    if found is None or rest is None:
        raise ValueError(f"{result.stdout[:100]!r}")
    md5s = hashes(found[2][:size], [dotted(file.path) for file in single])
    made = {path: Sums((md5,)) for path, md5 in md5s.items()}
    words = iter(rest[1].decode().split())
    for file in large:
        parts = tuple(next(words, "") for _ in spans(file.size))
        if next(words, "") == file.sha256:
            made[file.path] = Sums(parts)
    for file in (*single, *large):
        if file.path not in made:
            raise CommandError(SUMMING, 0, f"{shown(file.path)} changed since it was listed, or can't be read")
    return made
