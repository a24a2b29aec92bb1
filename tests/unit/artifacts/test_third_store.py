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

from dstack.artifacts import open as openers
from dstack.commands.artifacts.collect import FETCHING, LISTING
from dstack.commands.command import Command
from dstack.engine.lifecycle.drive import Drive
from dstack.engine.retention.retention import Retention
from dstack.errors import UsageError
from dstack.hosts.recording import Reply
from dstack.model.api.artifacts import LinksRequest
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


def test_it_has_no_urls_and_says_so(world: World) -> None:
    asyncio.run(world.drive().run())

    routes = ArtifactRoutes(world.context)

    assert asyncio.run(routes.urls("abc", LinksRequest(paths=("out/model",)))).urls == []
    with pytest.raises(UsageError, match="artifacts are stored in flat:///"):
        asyncio.run(routes.url("abc", "out/model"))
