"""A backup is complete or none, and a restore that anything interrupts leaves the old state or the restored one."""

from __future__ import annotations

import os
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dstack.errors import DstackError, StateDamagedError, UsageError
from dstack.model.paths import ServerLayout
from dstack.store.backup.make import back_up
from dstack.store.backup.restore import finish_restore, restore
from dstack.store.store import Store
from tests.unit.store.test_store import job, run


class Stopped(BaseException):
    """The process ended here."""


def names(layout: ServerLayout) -> list[str]:
    store = Store(layout)
    found = [each.name for each in store.runs.newest(9)]
    store.close()
    return found


@pytest.fixture
def layout(tmp_path: Path) -> ServerLayout:
    """The state of a server with a run, whose job has a log, with a secret and with code."""
    layout = ServerLayout(tmp_path / "home")
    store = Store(layout)
    store.runs.add(run("old"))
    store.jobs.add(job("old1", "old"))
    store.logs.append("old1", b"one\n")
    store.secrets.set("TOKEN", "hush", "2026-01-01T00:00:00Z")
    store.close()
    pack = layout.mirror("repo") / "objects" / "pack"
    pack.mkdir(parents=True)
    (pack / "pack-1").write_bytes(b"objects")
    (layout.artifacts / "old").mkdir(parents=True)
    (layout.artifacts / "old" / "model").write_text("made")
    os.link(layout.artifacts / "old" / "model", layout.artifacts / "content")
    return layout


@pytest.fixture
def file(layout: ServerLayout, tmp_path: Path) -> Path:
    """A backup of it, after which another run came, and the log grew."""
    file = tmp_path / "state.backup"
    back_up(layout, file, artifacts=True)
    store = Store(layout)
    store.runs.add(run("new"))
    store.logs.append("old1", b"two\n")
    store.close()
    return file


def test_the_state_comes_back_and_what_is_newer_beside_it_stays(layout: ServerLayout, file: Path) -> None:
    (layout.mirror("repo") / "objects" / "pack" / "pack-2").write_bytes(b"later")
    shutil.rmtree(layout.artifacts)
    epoch = Store(layout).identity.epoch

    restore(layout, file)

    assert names(layout) == ["old"]
    store = Store(layout)
    assert store.logs.read("old1", 0, 99) == b"one\ntwo\n"
    assert store.secrets.require("TOKEN") == "hush"
    assert store.identity.epoch == epoch + 1
    assert sorted(path.name for path in layout.mirror("repo").rglob("pack-*")) == ["pack-1", "pack-2"]
    assert (layout.artifacts / "old" / "model").stat().st_nlink == 2
    assert not layout.restoring.exists()
    assert not layout.restored.exists()


def test_another_home_gets_all_of_it(file: Path, tmp_path: Path) -> None:
    other = ServerLayout(tmp_path / "other")
    other.state.mkdir(parents=True)

    restore(other, file)

    store = Store(other)
    assert [each.name for each in store.runs.newest(9)] == ["old"]
    assert store.secrets.require("TOKEN") == "hush"
    assert store.logs.read("old1", 0, 99) == b"one\n"


def test_a_database_that_is_damaged_is_no_obstacle(layout: ServerLayout, file: Path) -> None:
    layout.database.write_bytes(b"\xa5" * 9999)
    with pytest.raises(StateDamagedError):
        Store(layout)

    restore(layout, file)

    assert names(layout) == ["old"]


def test_an_interrupted_restore_leaves_the_old_state_or_the_restored_one(
    layout: ServerLayout, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, stop_at = 0, 0

    def stopping(name: str) -> Any:
        real = getattr(Path, name)

        def call(path: Path, *arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise Stopped
            return real(path, *arguments, **options)

        return call

    seen = []
    while calls >= stop_at:
        calls, stop_at = 0, stop_at + 1
        home = ServerLayout(tmp_path / f"home{stop_at}")
        shutil.copytree(layout.home, home.home)
        with monkeypatch.context() as patched:
            for name in ("replace", "rename", "unlink", "mkdir"):
                patched.setattr(Path, name, stopping(name))
            with suppress(Stopped):
                restore(home, file)
        finish_restore(home)  # as the next server does
        seen.append(names(home))
        shutil.rmtree(home.home)

    assert seen[0] == ["new", "old"]
    assert seen[-1] == ["old"]
    assert seen == sorted(seen), "once the restored state is there, it stays"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"not a tar file",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-4],
        lambda data: data[:-8] + b"\0\0\0\0" + data[-4:],
    ],
)
def test_a_file_that_is_no_complete_backup_changes_nothing(layout: ServerLayout, file: Path, spoil: Any) -> None:
    file.write_bytes(spoil(file.read_bytes()))

    with pytest.raises(UsageError) as met:
        restore(layout, file)

    assert "the state is unchanged" in met.value.message
    assert names(layout) == ["new", "old"]


def test_what_is_not_a_backup_is_said_in_one_line(layout: ServerLayout, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a tar file")

    with pytest.raises(DstackError) as refused:
        restore(layout, other)

    assert "it is not a backup, or it is damaged" in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("name", ["../escaped", "logs/../../escaped", "/escaped", "server.log"])
def test_a_backup_writes_nothing_elsewhere(layout: ServerLayout, tmp_path: Path, name: str) -> None:
    hostile = tmp_path / "hostile"
    with tarfile.open(hostile, "w") as tar:
        tar.addfile(tarfile.TarInfo("dstack-backup-1"))
        tar.addfile(tarfile.TarInfo(name))

    with pytest.raises(UsageError):
        restore(layout, hostile)

    assert not list(tmp_path.rglob("escaped"))


def test_a_backup_that_can_not_be_written_leaves_nothing(layout: ServerLayout, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be written"):
        back_up(layout, tmp_path / "missing" / "file", artifacts=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_what_is_unfinished_or_on_its_way_is_left_out(layout: ServerLayout, tmp_path: Path) -> None:
    """A pack that is being received or sent may be as large as all of the code."""
    mirror = layout.mirror("repo")
    unfinished = ["in-1/pack/tmp_pack_1", "out-1/pack", "objects/pack/tmp_idx_1", "cuts/1.77.new", "packed-refs.new"]
    for name in [*unfinished, "cuts/1", "objects/pack/pack-2.pack", "refs/dstack/trees/in-1"]:
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_text("x")
    (layout.mirrors / "repo.lock").touch()
    (layout.artifacts / ".incoming" / "train.1").mkdir(parents=True)
    (layout.artifacts / ".incoming" / "train.1" / "model").write_text("half")

    back_up(layout, tmp_path / "file", artifacts=True)

    with tarfile.open(tmp_path / "file") as tar:
        kept = {member.name for member in tar if member.isfile()}
    assert {name for name in kept if name.startswith("mirrors/")} == {
        "mirrors/repo.git/objects/pack/pack-1",
        "mirrors/repo.git/objects/pack/pack-2.pack",
        "mirrors/repo.git/cuts/1",
        "mirrors/repo.git/refs/dstack/trees/in-1",
    }
    assert not [name for name in kept if ".incoming" in name]


@pytest.mark.parametrize("name", ["poetry.lock", "model.new", "in-1", "out-1", "tmp_1"])
def test_artifacts_may_have_any_name(layout: ServerLayout, tmp_path: Path, name: str) -> None:
    made = layout.artifacts / "in-run" / "out-job" / "sub" / name
    made.parent.mkdir(parents=True)
    made.write_text("made")
    file = tmp_path / "file"
    back_up(layout, file, artifacts=True)
    shutil.rmtree(layout.artifacts)

    restore(layout, file)

    assert made.read_text() == "made"
