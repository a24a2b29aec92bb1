"""A new kind of store takes one class and one line: jobs run with one that dstack doesn't know."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.responses import StreamingResponse

from dstack.artifacts import open as openers
from dstack.commands.artifacts.collect import FETCHING, LISTING
from dstack.commands.command import Command
from dstack.engine.lifecycle.drive import Drive
from dstack.engine.retention.retention import Retention
from dstack.engine.transfer.collect import Collector
from dstack.errors import UsageError
from dstack.hosts.recording import Reply
from dstack.model.api.artifacts import LinksRequest
from dstack.model.job.job import Job
from dstack.model.job.manifest import Folder
from dstack.model.job.status import Status
from dstack.model.paths import TAR_COMPLETE
from dstack.model.project.workflow import Artifact, Workflow
from dstack.server.routes.artifacts import ArtifactRoutes
from tests.unit.artifacts.flat_store import FlatStore
from tests.unit.engine.lifecycle.machine import Machine, World

CONTENTS = {"out/model": b"weights", "out/log": b"a line\n"}


class Producer(Machine):
    """A machine whose job leaves these files."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        super().__init__()
        self.contents = contents

    def reply(self, command: Command[Any]) -> Reply:
        if command.name == LISTING:
            return self.listing()
        if command.name == FETCHING:
            assert isinstance(command.stdin, bytes)
            paths = shlex.split(command.stdin.decode())[1:]
            return b"".join(self.contents[path.removeprefix("./")] for path in paths)
        return super().reply(command)

    def listing(self) -> bytes:
        """Return the answer of the host's script for the artifact `out`."""
        files = sorted(self.contents.items())
        sections = {
            "names": "".join(f"./{path}\0" for path, _ in files),
            "stats": "".join(f"81a4 {len(content)} ./{path}\n" for path, content in files),
            "hashes": "".join(f"{hashlib.sha256(content).hexdigest()}  ./{path}\n" for path, content in files),
            "links": "",
            "folders": "755 ./out/./\n755 ./out/empty/./\n",
            "modes": "2750 ./out/./\n500 ./out/empty/./\n",
            "long": "",
            "trouble": "",
        }
        return "".join(
            ["path=present\n", *(f"{name}={len(text)}\n{text}" for name, text in sections.items()), "end=\n"]
        ).encode()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A server that uses the third store, with a job that makes artifacts."""
    monkeypatch.setitem(openers.STORES, "flat", FlatStore.at)
    world = World(tmp_path / "home", Producer(CONTENTS))
    asyncio.run(world.context.artifacts.use(f"flat://{tmp_path}/stored", ""))
    definition = Workflow(name="job", image="busybox", commands=("make",), artifacts=(Artifact(path="out"),))
    world.store.jobs.change("abc", definition=definition)
    return world


def test_a_job_runs_with_it(world: World, tmp_path: Path) -> None:
    asyncio.run(world.drive().run())

    assert (world.job.status, world.job.files, world.job.bytes) == (Status.DONE, 2, 14)
    assert world.job.storages == ((f"flat://{tmp_path}/stored", ""),)
    stored = {path.name: path.read_bytes() for path in (tmp_path / "stored").iterdir() if path.suffix != ".json"}
    assert stored == {hashlib.sha256(content).hexdigest(): content for content in CONTENTS.values()}
    assert asyncio.run(world.context.artifacts.damage(world.job)) is None
    kept = asyncio.run(world.context.artifacts.manifest(world.job))
    assert kept.folders == (Folder("out", 0o2750), Folder("out/empty", 0o500))


def test_a_job_that_depends_on_it_gets_the_files(world: World) -> None:
    asyncio.run(world.drive().run())
    fresh = {"status": Status.PREPARING, "launching": False, "final_status": None}
    later = replace(world.job, id="def", dependencies={"job": "abc"}, **fresh)
    world.store.jobs.change("abc", discarded=True)
    world.store.jobs.add(replace(later, definition=Workflow(name="job", image="busybox", commands=("use",))))
    world.machine.claim = "none"
    world.machine.host.inputs.clear()

    asyncio.run(Drive(world.context, "def").run())

    assert world.store.jobs.require("def").status is Status.DONE
    sent = next(data for data in world.machine.host.inputs if TAR_COMPLETE.encode() in data)
    with tarfile.open(fileobj=BytesIO(sent[sent.index(b"out/") :])) as archive:
        found = {each.name: archive.extractfile(each) for each in archive if each.size}
        assert {path: content and content.read() for path, content in found.items()} == CONTENTS
    launched = next(c.script for c in world.machine.host.commands if "mkdir -p './out' './out/empty'" in c.script)
    assert launched.index("chmod '00500' './out/empty'") < launched.index("chmod '02750' './out'")


def test_a_job_that_is_aborted_while_it_is_stored_leaves_nothing(world: World, tmp_path: Path) -> None:
    world.store.jobs.change("abc", status=Status.UPLOADING, final_status=Status.DONE, exit_code=0)
    world.drive().will_store()
    world.store.jobs.change("abc", stop="abort")

    asyncio.run(world.drive().run())

    assert world.job.status is Status.STOPPED
    assert list((tmp_path / "stored").iterdir()) == []


def test_a_run_is_deleted_from_it_after_another_storage_is_used(world: World, tmp_path: Path) -> None:
    asyncio.run(world.drive().run())
    world.store.jobs.change("abc", discarded=True)
    asyncio.run(world.context.artifacts.use(str(tmp_path / "folder"), ""))

    removed = asyncio.run(Retention(world.context).delete([world.store.runs.require("run")]))

    assert [each.stays for each in removed] == [[]]
    assert list((tmp_path / "stored").iterdir()) == []
    assert world.store.jobs.get("abc") is None


def later(world: World, name: str = "def", **changes: Any) -> Job:
    """Add a job that is about to start, after the first one's artifacts are no longer on its machine."""
    world.store.jobs.change("abc", discarded=True)
    fresh = {"status": Status.PREPARING, "launching": False, "final_status": None, "storages": (), "discarded": False}
    job = replace(world.job, id=name, **{**fresh, **changes})
    world.store.jobs.add(job)
    world.machine.claim = "none"
    world.machine.host.inputs.clear()
    return job


def sent_files(world: World) -> dict[str, bytes]:
    """Return the files in the tar that the last launch got."""
    sent = next(data for data in world.machine.host.inputs if TAR_COMPLETE.encode() in data)
    with tarfile.open(fileobj=BytesIO(sent[sent.index(b"out/") :])) as archive:
        found = {each.name: archive.extractfile(each) for each in archive if each.size}
        return {path: content.read() for path, content in found.items() if content}


@pytest.mark.parametrize("record", ["names the store", "names none"])
def test_after_a_change_of_the_storage_everything_is_read_from_where_it_lies(
    world: World, tmp_path: Path, record: str
) -> None:
    # Given a job whose artifacts are in the third store
    asyncio.run(world.drive().run())
    artifacts, routes = world.context.artifacts, ArtifactRoutes(world.context)
    if record == "names none":
        world.store.jobs.change("abc", storages=())

    # When the storage is changed twice
    for name in ("folder", "another"):
        asyncio.run(artifacts.use(str(tmp_path / name), ""))

    # Then it is listed, read, and good enough for the cache
    assert [view.path for view in asyncio.run(routes.artifacts("abc"))] == sorted(CONTENTS)
    assert [view.path for view in asyncio.run(routes.folders("abc"))] == ["out", "out/empty"]
    assert asyncio.run(read(routes, "abc", "out/model")) == b"weights"
    assert asyncio.run(artifacts.damage(world.job)) is None
    with pytest.raises(UsageError, match="artifacts are stored in flat:///"):
        asyncio.run(routes.url("abc", "out/model"))


async def read(routes: ArtifactRoutes, ref: str, path: str) -> bytes:
    response = await routes.file(ref, path)
    assert isinstance(response, StreamingResponse)
    return b"".join([bytes(piece) async for piece in response.body_iterator if isinstance(piece, bytes)])


def test_a_job_gets_artifacts_from_several_stores(world: World, tmp_path: Path) -> None:
    # Given two jobs with artifacts in two stores
    asyncio.run(world.drive().run())
    asyncio.run(world.context.artifacts.use(str(tmp_path / "folder"), ""))
    other = replace(world.store.runs.require("run"), name="other")
    world.store.runs.add(other)
    later(world, "two", run="other", workflow="two")
    assert isinstance(world.machine, Producer)
    world.machine.contents = {"out/log": CONTENTS["out/log"], "out/more": b"more"}
    asyncio.run(Drive(world.context, "two").run())
    assert world.store.jobs.require("two").storages == ((str(tmp_path / "folder"), ""),)
    world.store.jobs.change("two", discarded=True)

    # When a job that depends on both starts
    use = Workflow(name="job", image="busybox", commands=("use",))
    later(world, "def", dependencies={"job": "abc", "two": "two"}, definition=use)
    asyncio.run(Drive(world.context, "def").run())

    # Then it gets all of them in one tar
    assert world.store.jobs.require("def").status is Status.DONE
    assert sent_files(world) == {**CONTENTS, "out/more": b"more"}


def test_a_result_in_an_earlier_store_that_is_gone_is_made_again(world: World, tmp_path: Path) -> None:
    asyncio.run(world.drive().run())
    asyncio.run(world.context.artifacts.use(str(tmp_path / "folder"), ""))
    (tmp_path / "stored").rename(tmp_path / "unplugged")

    assert asyncio.run(world.context.artifacts.damage(world.job)) == "the result of run is no longer stored"


def test_a_collection_ends_in_the_store_in_which_it_began(world: World, tmp_path: Path) -> None:
    world.store.jobs.change("abc", status=Status.UPLOADING, final_status=Status.DONE, exit_code=0)
    collector = Collector(world.drive(), lambda *_: None)

    async def changed_meanwhile() -> None:
        found = await collector.store()
        await world.context.artifacts.use(str(tmp_path / "folder"), "")
        await collector.commit(found, Status.DONE)

    asyncio.run(changed_meanwhile())

    kept = asyncio.run(world.context.artifacts.manifest(world.job))
    assert [file.path for file in kept.files] == sorted(CONTENTS)
    assert world.job.storages == ((f"flat://{tmp_path}/stored", ""),)


def test_the_last_storage_that_was_used_comes_last(world: World, tmp_path: Path) -> None:
    flat, folder = (f"flat://{tmp_path}/stored", ""), (str(tmp_path / "folder"), "")
    for url, _ in (flat, folder, flat):
        asyncio.run(world.context.artifacts.use(url, ""))
        world.drive().will_store()

    assert world.job.storages == (folder, flat)


def test_it_has_no_urls_and_says_so(world: World) -> None:
    asyncio.run(world.drive().run())

    routes = ArtifactRoutes(world.context)

    assert asyncio.run(routes.urls("abc", LinksRequest(paths=("out/model",)))).urls == []
    with pytest.raises(UsageError, match="artifacts are stored in flat:///"):
        asyncio.run(routes.url("abc", "out/model"))
