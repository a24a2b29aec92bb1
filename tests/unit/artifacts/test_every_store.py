"""What every artifact store promises: the folder, the bucket, and a store made for the tests.

The host is a real shell, and the bucket a real S3 server that the shell uploads to.
"""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec import structs

from dstack.artifacts import open as openers
from dstack.artifacts.open import open_store
from dstack.artifacts.store import ArtifactStore, JobFolder, Location
from dstack.artifacts.tarball import tar
from dstack.commands.command import Command, Result
from dstack.errors import HostUnreachableError, NotFoundError, StorageError, UsageError
from dstack.hosts.local import LocalHost
from dstack.model.job.manifest import PARTIAL, File, Manifest
from dstack.model.job.manifest import Folder as Left
from dstack.model.paths import TAR_COMPLETE
from tests.environment.s3 import BUCKET, S3
from tests.unit.artifacts.flat_store import FlatStore
from tests.unit.artifacts.made import Index, file, link, manifest
from tests.unit.commands.hosts import Folder

T = TypeVar("T")

CONTENTS = {"out/a": b"one", "out/deep/it's\nnew": b"two", "out/empty": b"", "out/again": b"one", "-rf": b"three"}
FOLDERS = (Left("out", 0o2750), Left("out/deep", 0), Left("out/none/in", 0o555), Left("out/\udcff\n", 0o777))
FILES = [*(file(path, content) for path, content in sorted(CONTENTS.items())), link("out/latest", "a")]


@dataclass
class Unsteady(LocalHost):
    """A host that loses the connection at the end of the n-th command."""

    breaks_at: int | None = None
    commands: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        result = await super().run(command, timeout=timeout)
        if self.breaks(command):
            raise HostUnreachableError("the connection broke")
        return result

    async def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        broken = self.breaks(command)
        async with aclosing(super().stream(command)) as arriving:
            async for piece in arriving:
                yield piece[:4] if broken else piece
                if broken:
                    raise HostUnreachableError("the connection broke")

    def breaks(self, command: Command[T]) -> bool:
        self.commands.append(command.name)
        return len(self.commands) - 1 == self.breaks_at


@pytest.fixture(params=["folder", "s3", "flat"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    monkeypatch.setitem(openers.STORES, "flat", FlatStore.at)
    if request.param != "s3":
        url = f"flat://{tmp_path}/stored" if request.param == "flat" else f"{tmp_path}/stored"
        yield Location(url, None, Index(), 60)
        return
    server: S3 = request.getfixturevalue("s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield Location(f"s3://{BUCKET}/p", server.url, Index(), 60)
    server.restore()


@pytest.fixture
def store(location: Location) -> ArtifactStore:
    store = open_store(location)
    store.check()
    return store


@pytest.fixture
def host(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "host")


def job(host: Folder, attempt: str = "j1", run: str = "run-1", contents: dict[str, bytes] | None = None) -> JobFolder:
    """Make a job that left these files on the host."""
    tree = host.job(attempt)
    for path, content in (CONTENTS if contents is None else contents).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    return JobFolder(attempt, run, "train", attempt, "lab", Unsteady(), host.context, "workflow")


async def collected(store: ArtifactStore, folder: JobFolder, files: list[File] = FILES) -> Manifest:
    await store.collect(folder, files)
    return await store.commit(structs.replace(manifest(files, run=folder.run, job=folder.job), folders=FOLDERS))


async def opened(store: ArtifactStore, run: str, path: str, offset: int = 0) -> bytes:
    return b"".join([piece async for piece in store.open(run, "train", path, offset)])


def bare(files: tuple[File, ...]) -> list[File]:
    """Return the files without what a store adds."""
    return [File(each.path, each.size, each.mode, each.sha256, each.link) for each in files]


def test_what_a_job_made_is_stored_whole(store: ArtifactStore, host: Folder) -> None:
    written = asyncio.run(collected(store, job(host)))

    assert bare(written.files) == FILES
    assert written.folders == FOLDERS
    assert store.manifest("run-1", "train") == written
    assert store.verify(written) is None
    for path, content in CONTENTS.items():
        assert asyncio.run(opened(store, "run-1", path)) == content
    assert asyncio.run(opened(store, "run-1", "out/a", 1)) == b"ne"
    with pytest.raises(NotFoundError):
        asyncio.run(opened(store, "run-1", "out/none"))


def test_without_a_commit_there_is_nothing(store: ArtifactStore, host: Folder) -> None:
    asyncio.run(store.collect(job(host), FILES))

    assert store.manifest("run-1", "train") is None


def test_it_tells_how_much_is_left(store: ArtifactStore, host: Folder) -> None:
    told: list[int] = []

    asyncio.run(store.collect(job(host), FILES, told.append))

    assert told == sorted(told, reverse=True)
    assert all(0 <= left <= sum(each.size for each in FILES) for left in told)


def test_a_collection_that_broke_off_anywhere_is_repeated(store: ArtifactStore, host: Folder) -> None:
    folder = job(host)
    whole = Unsteady()
    asyncio.run(collected(store, replace(folder, host=whole)))
    asyncio.run(store.remove("run-1", "train"))

    for number in range(len(whole.commands)):
        with pytest.raises(HostUnreachableError):
            asyncio.run(collected(store, replace(folder, host=Unsteady(breaks_at=number))))
        written = asyncio.run(collected(store, folder))

        assert store.verify(written) is None
        asyncio.run(store.remove("run-1", "train"))
    assert whole.commands


def test_an_aborted_job_leaves_nothing(store: ArtifactStore, host: Folder) -> None:
    folder = job(host)
    asyncio.run(store.collect(folder, FILES))

    asyncio.run(store.abandon(folder))
    asyncio.run(store.remove("run-1", "train"))
    asyncio.run(store.unused(time.time() + 60))

    regular = [each for each in FILES if each.link is None]
    assert asyncio.run(store.copy("run-2", "train", FILES)) == regular
    assert asyncio.run(store.clear("run-1", "train", dry_run=True)) == 0


def test_bytes_that_changed_since_they_were_listed_are_refused(store: ArtifactStore, host: Folder) -> None:
    folder = job(host, contents={"a": b"now longer"})

    with pytest.raises(StorageError):
        asyncio.run(collected(store, folder, [file("a", b"listed")]))

    assert store.manifest("run-1", "train") is None


def test_another_job_gets_the_same_content_without_its_host(store: ArtifactStore, host: Folder) -> None:
    asyncio.run(collected(store, job(host)))
    new = file("new", b"nobody has this")
    moved = file("elsewhere", b"two")

    assert asyncio.run(store.copy("run-2", "train", [moved, new, link("l", "new")])) == [new]
    written = asyncio.run(store.commit(manifest([moved], run="run-2", job="j2")))

    assert store.verify(written) is None
    assert asyncio.run(opened(store, "run-2", "elsewhere")) == b"two"


def test_a_commit_replaces_what_was_synced_and_needs_every_content(store: ArtifactStore, host: Folder) -> None:
    early = job(host, contents={"out/a": b"early", "out/gone": b"gone later"})
    synced = [file("out/a", b"early"), file("out/gone", b"gone later")]
    asyncio.run(store.collect(early, synced))
    asyncio.run(store.commit(Manifest("j1", "run-1", "train", PARTIAL, tuple(synced))))
    with pytest.raises(StorageError):
        asyncio.run(store.commit(manifest([file("out/a", b"never came")])))

    shutil.rmtree(host.base / "jobs" / "j1")
    written = asyncio.run(collected(store, job(host)))

    assert store.manifest("run-1", "train") == written
    assert asyncio.run(opened(store, "run-1", "out/a")) == b"one"
    with pytest.raises(NotFoundError):
        asyncio.run(opened(store, "run-1", "out/gone"))


def test_paths_that_leave_the_tree_are_refused(store: ArtifactStore, host: Folder) -> None:
    with pytest.raises(StorageError):
        asyncio.run(store.commit(manifest([link("out", "/etc")])))

    assert store.manifest("run-1", "train") is None


@pytest.mark.parametrize("beside", [False, True])
def test_a_dependency_arrives_on_a_host(store: ArtifactStore, host: Folder, beside: bool) -> None:
    written = asyncio.run(collected(store, job(host)))
    folder = job(host, "j2", "run-2", {})
    there = host.base / "jobs/j2/gathered"
    there.mkdir()
    (there / "kept").write_bytes(b"kept")

    async def arrived() -> None:
        entries = await store.place(folder, [written], beside=beside)
        if entries is not None:  # the launch sends and unpacks them
            sent = b"".join(tar(entries))
            with tarfile.open(fileobj=BytesIO(sent), errorlevel=1) as archive:
                assert archive.getnames()[-1] == TAR_COMPLETE
                archive.extractall(there)

    asyncio.run(arrived())

    assert {path: (there / path).read_bytes() for path in CONTENTS} == CONTENTS
    assert (there / "out/latest").readlink() == Path("a")
    assert (there / "kept").exists() or not beside


def test_urls_lead_to_the_bytes_where_there_are_urls(store: ArtifactStore, host: Folder) -> None:
    asyncio.run(collected(store, job(host)))

    presigned = asyncio.run(store.presign("run-1", "train", ["out/a", "-rf"]))

    if presigned is not None:
        answers = [urllib.request.urlopen(url).read() for url in presigned.urls]
        assert answers == [b"one", b"three"]
        assert presigned.lifetime == 60


def test_removing_a_job_leaves_the_others_whole(store: ArtifactStore, host: Folder) -> None:
    asyncio.run(collected(store, job(host)))
    other = asyncio.run(collected(store, job(host, "j2", "run-2")))

    asyncio.run(store.remove("run-1", "train"))
    asyncio.run(store.remove("run-1", "train"))

    assert store.manifest("run-1", "train") is None
    assert store.manifest("run-2", "train") == other
    assert store.verify(other) is None


def test_what_is_in_use_is_not_cleared(store: ArtifactStore, host: Folder) -> None:
    written = asyncio.run(collected(store, job(host)))

    assert asyncio.run(store.clear("run-1", "train")) == 0
    assert asyncio.run(store.unused(time.time() + 60)) == 0
    asyncio.run(store.sweep(time.time() + 1))

    assert store.verify(written) is None


def test_a_dry_run_removes_nothing(store: ArtifactStore, host: Folder) -> None:
    asyncio.run(store.collect(job(host), FILES))

    async def leftovers(dry_run: bool) -> int:
        cleared = await store.clear("run-1", "train", dry_run=dry_run)
        return cleared + await store.unused(time.time() + 60, dry_run=dry_run)

    assert asyncio.run(leftovers(True)) == asyncio.run(leftovers(False)) >= len(b"onetwothree")
    assert asyncio.run(leftovers(False)) == 0


def test_it_is_opened_again_by_its_url(store: ArtifactStore, location: Location, host: Folder) -> None:
    written = asyncio.run(collected(store, job(host)))

    again = open_store(replace(location, url=store.url))

    assert again.name == store.name
    assert again.absent() is None
    assert again.manifest("run-1", "train") == written
    asyncio.run(again.reach(job(host, "j2")))


@pytest.mark.parametrize(
    ("url", "endpoint", "message"),
    [
        ("gs://bucket", None, "'gs://bucket' is not a valid storage"),
        ("s3://", None, "'s3://' is not a valid storage URL"),
        ("/folder", "http://localhost", "an endpoint needs a bucket, and '/folder' is not one"),
        ("s3://bucket", "https://ann:secret@s3.example", "the endpoint's URL has a login in it"),
        ("some/folder", None, "'some/folder' is not a valid storage"),
        ("/dev/null/folder", None, "/dev/null/folder can't be the storage: Not a directory"),
    ],
)
def test_what_is_not_a_store_is_refused(url: str, endpoint: str | None, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_store(Location(url, endpoint, Index(), 60)).check()

    assert message in refused.value.message
