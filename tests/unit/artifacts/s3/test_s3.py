"""The store in a bucket, against a real S3 server that checks signatures."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone

import pytest

from dstack.artifacts.s3.bucket import parse
from dstack.artifacts.s3.presign import Signer
from dstack.artifacts.s3.store import S3Store
from dstack.artifacts.s3.uploads import Uploads
from dstack.errors import NotFoundError, StorageError, UsageError
from dstack.model.job.manifest import File, Manifest
from dstack.model.job.pieces import MIB, PART, Piece, Stored, Sums, part_size, spans
from tests.environment.proxy import Proxy
from tests.environment.s3 import BUCKET, S3
from tests.unit.artifacts.made import Index

ODD = ["a b", 'it\'s "x"', "-rf", "[a]{b,c}*?", "ünïcödé 名前", "new\nline", "x" * 250, "%0A", "a+b&c=d#e", "d/-n/e"]


@pytest.fixture
def server(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    s3_server.restore()


@pytest.fixture
def store(server: S3) -> S3Store:
    return S3Store(f"s3://{BUCKET}/p", server.url, Index())


def file(path: str, content: bytes) -> File:
    return File(path, len(content), 0o644, hashlib.sha256(content).hexdigest())


def sums(content: bytes) -> Sums:
    return Sums(tuple(hashlib.md5(content[at : at + size]).hexdigest() for at, size in spans(len(content))))


def put(piece: Piece, content: bytes) -> int:
    """Send the piece; return S3's status."""
    headers = [word for name, value in piece.headers for word in ("-H", f"{name}: {value}")]
    body = content[piece.start : piece.start + piece.length]
    command = ["curl", "-qsS", "-T", "-", "-H", f"Content-Length: {len(body)}", "-H", "Transfer-Encoding:", *headers]
    command += ["-o", os.devnull, "-w", "%{http_code}", "--globoff", piece.url]
    return int(subprocess.run(command, input=body, capture_output=True, check=True).stdout)


def uploads(store: S3Store) -> Uploads:
    return Uploads(store.objects("r", "w"), store.expires)


async def stored(store: S3Store, contents: dict[str, bytes]) -> Manifest:
    files = [file(path, content) for path, content in contents.items()]
    hashed = {path: sums(content) for path, content in contents.items()}
    plan = uploads(store).plan(files, hashed)
    for piece in plan.pieces:
        assert put(piece, contents[piece.path]) == 200
    known = uploads(store).plan(files, hashed).arrived
    assert set(known) == set(contents)
    return await store.commit(Manifest("j", "r", "w", "done", tuple(files)))


async def read(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def test_names_survive(store: S3Store) -> None:
    contents = {f"out/{name}": name.encode() for name in ODD}

    manifest = asyncio.run(stored(store, contents))

    assert store.manifest("r", "w") == manifest
    assert store.verify(manifest) is None
    for path, content in contents.items():
        assert asyncio.run(read(store.open("r", "w", path))) == content


def test_names_that_no_key_can_tell_apart_are_refused(store: S3Store) -> None:
    files = [file("a\nb", b"1"), file("a%0Ab", b"2")]
    hashed = {"a\nb": sums(b"1"), "a%0Ab": sums(b"2")}

    with pytest.raises(StorageError, match="same name in S3"):
        uploads(store).plan(files, hashed)


def test_a_large_file_goes_in_parts_and_only_those_that_lack(store: S3Store) -> None:
    content = os.urandom(PART + 5)
    one, hashed = file("large", content), {"large": sums(content)}
    plan = uploads(store).plan([one], hashed)
    assert [(piece.part, piece.start, piece.length) for piece in plan.pieces] == [(1, 0, PART), (2, PART, 5)]
    assert put(plan.pieces[1], content) == 200

    plan = uploads(store).plan([one], hashed)
    assert [piece.part for piece in plan.pieces] == [1]
    assert put(plan.pieces[0], content) == 200
    plan = uploads(store).plan([one], hashed)

    assert not plan.pieces
    asyncio.run(store.commit(Manifest("j", "r", "w", "done", (one,))))
    assert asyncio.run(read(store.open("r", "w", "large", PART - 3))) == content[PART - 3 :]
    assert asyncio.run(read(store.open("r", "w", "large", len(content)))) == b""


def test_other_bytes_than_were_hashed_are_refused(store: S3Store) -> None:
    plan = uploads(store).plan([file("a", b"right")], {"a": sums(b"right")})

    assert put(plan.pieces[0], b"wrong") == 400


def test_a_url_is_good_for_its_own_object_and_its_own_time_alone(store: S3Store) -> None:
    plan = uploads(store).plan([file("a", b"x")], {"a": sums(b"x")})
    piece = plan.pieces[0]

    elsewhere = Piece(piece.path, 0, 1, None, piece.url.replace("/r/w/a", "/r/w/b"), piece.headers)

    assert put(elsewhere, b"x") == 403
    signer = store.bucket.signer()
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    expired = signer.url("PUT", "p/r/w/a", 60, headers=dict(piece.headers), now=past)
    assert put(Piece("a", 0, 1, None, expired, piece.headers), b"x") in (400, 403)


def test_a_commit_needs_all_files_and_removes_the_others(store: S3Store, server: S3) -> None:
    asyncio.run(stored(store, {"old": b"1", "kept": b"2"}))

    with pytest.raises(StorageError, match="'missing' is not in the store"):
        asyncio.run(store.commit(Manifest("j2", "r", "w", "done", (file("missing", b"x"),))))
    asyncio.run(store.commit(Manifest("j2", "r", "w", "done", (file("kept", b"2"),))))

    assert set(server.objects) == {"p/r/w/kept", "p/r/w/manifest.json"}


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "'a' is gone"), (b"other", "'a' has 5 bytes instead of 3"), (b"eno", "'a' no longer matches its checksum")],
)
def test_damage_is_told(store: S3Store, server: S3, content: bytes | None, said: str) -> None:
    manifest = asyncio.run(stored(store, {"a": b"one", "b": b"two"}))

    if content is None:
        store.bucket.call("delete_object", Key="p/r/w/a")
    else:
        store.bucket.call("put_object", Key="p/r/w/a", Body=content)

    assert said in str(store.verify(manifest))


def test_copies_of_what_is_not_what_it_was_are_not_made(store: S3Store, server: S3) -> None:
    manifest = asyncio.run(stored(store, {"a": b"one"}))
    one = manifest.files[0]
    source = Stored(store.objects("r", "w").key("a"), one.size, str(one.etag))

    assert store.objects("r2", "w").copy("p/r2/w/a", source) == one.etag
    (server.folder / "objects" / BUCKET / "p/r/w/a").write_bytes(b"eno")
    assert store.objects("r3", "w").copy("p/r3/w/a", source) is None
    assert store.objects("r3", "w").copy("p/r3/w/a", Stored("p/none", one.size, str(one.etag))) is None
    assert server.objects["p/r2/w/a"] == b"one"
    assert "p/r3/w/a" not in server.objects


def test_nothing_is_left_of_what_is_removed(store: S3Store, server: S3) -> None:
    asyncio.run(stored(store, {"a": b"one", "d/b": b"two"}))
    content = os.urandom(PART + 1)
    plan = uploads(store).plan([file("large", content)], {"large": sums(content)})
    assert put(plan.pieces[1], content) == 200

    asyncio.run(store.remove("r", "w"))

    assert server.objects == {}
    assert store.manifest("r", "w") is None
    with pytest.raises(NotFoundError):
        asyncio.run(read(store.open("r", "w", "a")))


def test_a_manifest_that_breaks_off_is_trouble_and_one_that_is_damaged_none(store: S3Store, server: S3) -> None:
    asyncio.run(stored(store, {"a": b"x"}))
    proxy = Proxy(server.port)
    try:
        there = S3Store(f"s3://{BUCKET}/p", proxy.url, Index())
        proxy.cut = lambda request: 20
        with pytest.raises(StorageError, match="S3 does not answer"):
            there.manifest("r", "w")
        proxy.cut = lambda request: None
        assert there.manifest("r", "w") is not None
        store.bucket.call("put_object", Key="p/r/w/manifest.json", Body=b'{"job": ')
        assert there.manifest("r", "w") is None
    finally:
        proxy.close()


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///x", "http://b/x", "s3://b/../x", "s3://b/a//b", "s3://b/x?y", "s3://a!b/x"]
)
def test_what_is_no_bucket(url: str) -> None:
    with pytest.raises(UsageError, match="is not a valid storage URL; write s3://bucket/prefix"):
        parse(url)


@pytest.mark.parametrize(
    ("missing", "endpoint", "said"),
    [
        ({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, None, "the server has no credentials for S3"),
        ({"AWS_SECRET_ACCESS_KEY"}, None, "Partial credentials"),
        (set(), "nonsense", "Invalid endpoint: nonsense"),
        (set(), "http://no.such.host.invalid", "Could not connect to the endpoint"),
    ],
)
def test_what_is_lacking_is_told(
    server: S3, monkeypatch: pytest.MonkeyPatch, missing: set[str], endpoint: str | None, said: str
) -> None:
    for name in missing:
        monkeypatch.delenv(name)

    with pytest.raises(UsageError, match=said) as refused:
        S3Store(f"s3://{BUCKET}/p", endpoint or server.url, Index()).check()
    assert refused.value.hint


def test_the_signature_is_that_of_the_specification() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html has this example."""
    keys = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    signer = Signer("https://examplebucket.s3.amazonaws.com", "us-east-1", *keys)

    url = signer.url("GET", "test.txt", 86400, now=datetime(2013, 5, 24, tzinfo=timezone.utc))

    assert url.endswith("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 6 * 1024**3, 5 * 1024**4])
def test_parts_cover_a_file_of_any_size(size: int) -> None:
    parts = spans(size)

    assert sum(length for _, length in parts) == size
    assert len(parts) <= 10_000
    assert part_size(size) % MIB == 0
    assert part_size(size) <= 5 * 1024**3
