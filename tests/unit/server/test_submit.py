"""The body of a submission: one line of JSON, then a pack."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from dstack.engine.submission.submit import Submitter
from dstack.errors import DiskFullError, UsageError
from dstack.model.api import wire
from dstack.model.api.runs import Submission
from dstack.plumbing import space
from dstack.plumbing.space import Space
from dstack.server import submit
from tests.unit.engine.submission.test_plan import SUBMISSION

LINE = wire.encode(SUBMISSION) + b"\n"
PACK = b"PACK\n\x00\n" * 100


async def read(body: AsyncIterator[bytes], pack: io.BytesIO) -> Submission:
    return await submit.read(body, pack, Submission, submit.checked)


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 7, len(LINE), len(LINE) + 3, 10**6])
def test_however_the_body_is_cut_the_pack_is_what_follows_the_line(size: int) -> None:
    pack = io.BytesIO()

    submission = asyncio.run(read(pieces(LINE + PACK, size), pack))

    assert (submission, pack.getvalue()) == (SUBMISSION, PACK)


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"", "can't be read"), (b"{}\n", "can't be read"), (b"PACK", "can't be read"), (b"x" * 100, "too large")],
)
def test_no_submission(body: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "LONGEST_HEAD", 50)

    with pytest.raises(UsageError, match=message):
        asyncio.run(read(pieces(body, 10), io.BytesIO()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment": {"A\nB": "x"}}, "-e: 'A\\\\nB' is not a valid variable name"),
        ({"environment": {"1A": "x"}}, "-e: '1A' is not a valid variable name"),
        ({"environment": {"A": "x\0"}}, "a text in it contains a NUL character"),
        ({"user": "\\\0"}, "a text in it contains a NUL character"),
    ],
)
def test_what_no_container_takes_is_refused_at_once(change: dict[str, Any], message: str) -> None:
    line = wire.encode(replace(SUBMISSION, **change)) + b"\n"

    with pytest.raises(UsageError, match=message):
        asyncio.run(read(pieces(line, 10**6), io.BytesIO()))


def test_a_backslash_before_the_text_of_an_escape_is_no_nul() -> None:
    line = wire.encode(replace(SUBMISSION, environment={"A": "\\u0000"})) + b"\n"

    assert asyncio.run(read(pieces(line, 10**6), io.BytesIO())).environment == {"A": "\\u0000"}


def test_what_does_not_fit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "space", lambda folder: Space(free=13 * 10**6, reserve=6 * 10**6, files=True))

    with pytest.raises(DiskFullError, match="nothing was submitted: the server's disk is full: 13 MB are free") as full:
        asyncio.run(submit.submit(cast(Submitter, None), tmp_path, pieces(LINE, 1), 150 * 10**6))

    assert (full.value.exit_code, list(tmp_path.iterdir())) == (75, [])
