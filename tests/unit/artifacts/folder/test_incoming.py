"""A stream of contents is split whatever its pieces are, and taken in only if it is what was listed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.artifacts.folder.store import FolderStore
from dstack.errors import StorageError
from tests.unit.artifacts.made import file, manifest, on_disk, stream


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces that end at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=12, unique=True),
    st.lists(st.integers(min_value=0, max_value=5000), max_size=20),
)
def test_any_pieces_give_the_same_files(contents: list[bytes], places: list[int]) -> None:
    files = [file(str(number), content) for number, content in enumerate(contents)]
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        pieces = cut(b"".join(contents), places)

        async def run() -> None:
            await store.receive("r", "w", stream(*pieces), files)
            await store.commit(manifest(files, "r", "w"))

        asyncio.run(run())
        found = on_disk(store.root / "r" / "w")
        assert [found[str(number)][1] for number in range(len(contents))] == contents


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=6, unique=True), st.data())
def test_a_changed_cut_or_long_stream_is_refused(contents: list[bytes], data: st.DataObject) -> None:
    files = [file(str(number), content) for number, content in enumerate(contents)]
    whole = b"".join(contents)
    at = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    bad = data.draw(st.sampled_from([whole[:at], whole + b"x", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]]))
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))

        async def run() -> list[str]:
            with pytest.raises(StorageError):
                await store.receive("r", "w", stream(bad), files)
            missing = await store.missing(files)
            await store.receive("r", "w", stream(*(contents[int(one.path)] for one in missing)), missing)
            return [one.path for one in await store.missing(files)]

        assert asyncio.run(run()) == []


def test_the_message_names_the_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    files = [file("first", b"12345"), file("second", b"12345678")]

    with pytest.raises(StorageError, match="'second' arrived incomplete: 3 of 8 bytes"):
        asyncio.run(store.receive("r", "w", stream(b"12345678"), files))
    with pytest.raises(StorageError, match="'second' does not match its checksum: it changed"):
        asyncio.run(store.receive("r", "w", stream(b"1234587654321"), files))
    with pytest.raises(StorageError, match="more bytes than the requested files"):
        asyncio.run(store.receive("r", "w", stream(b"123451234567890"), files))
    assert [one.path for one in asyncio.run(store.missing(files))] == []


def test_whole_files_stay_when_a_later_one_fails(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    files = [file("first", b"12345"), file("second", b"12345678")]

    with pytest.raises(StorageError):
        asyncio.run(store.receive("r", "w", stream(b"12345", b"1"), files))

    assert [one.path for one in asyncio.run(store.missing(files))] == ["second"]
    assert not list((tmp_path / ".incoming").iterdir())


@pytest.mark.parametrize("trouble", [ConnectionError("cut"), asyncio.CancelledError()], ids=["cut", "cancelled"])
def test_a_stream_that_breaks_is_closed_and_leaves_nothing_half(tmp_path: Path, trouble: BaseException) -> None:
    store = FolderStore(tmp_path)
    closed = []

    async def broken() -> AsyncGenerator[bytes, None]:
        try:
            yield b"x" * (1 << 20)
            raise trouble
        finally:
            closed.append(True)

    async def run() -> None:
        with pytest.raises(type(trouble)):
            await store.receive("r", "w", broken(), [file("big", b"x" * (2 << 20))])

    asyncio.run(run())
    assert closed == [True]
    assert not list((tmp_path / ".incoming").iterdir())


def test_small_pieces_are_told_as_they_arrive(tmp_path: Path) -> None:
    store, left = FolderStore(tmp_path), list[int]()

    async def slow() -> AsyncIterator[bytes]:
        yield b"abc"
        assert left == [3]
        yield b"def"

    asyncio.run(store.receive("r", "w", slow(), [file("a", b"abcdef")], left.append))

    assert left == [3, 0]
