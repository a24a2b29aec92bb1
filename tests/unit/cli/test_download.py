"""`dstack artifacts download` against a fake server."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from dstack.cli.download import Item
from dstack.errors import StorageError
from dstack.model.api.artifacts import ArtifactView, FolderView
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import State

JOB = "0123456789ab"
MODEL = bytes(range(256)) * 400


def store(state: State, path: str, data: bytes = b"x", mode: int = 0o644, link: str | None = None) -> ArtifactView:
    """Put a file into the fake server's store."""
    digest = "" if link is not None else hashlib.sha256(data).hexdigest()
    view = ArtifactView(job=JOB, workflow="train", path=path, size=len(data), mode=mode, sha256=digest, link=link)
    state.artifacts.append(view)
    state.files[JOB, path] = data
    return view


def make(state: State, **modes: int) -> None:
    """Put folders into the fake server's store."""
    for path, mode in modes.items():
        state.folders.append(FolderView(job=JOB, workflow="train", path=path.replace("__", "/"), mode=mode))


@pytest.fixture(autouse=True)
def stored(state: State) -> None:
    store(state, "out/model.bin", MODEL)
    store(state, "out/run.sh", b"#!/bin/sh\n", mode=0o4755)
    store(state, "empty", b"")
    store(state, "out/latest", b"", link="model.bin")


def test_a_run_goes_to_a_folder_for_each_workflow(cli: Cli, folder: Path) -> None:
    done = cli("artifacts", "download", "brave", "-o", str(folder / "o"))

    top = folder / "o" / "train"
    assert done.returncode == 0, done.stderr
    assert (top / "out" / "model.bin").read_bytes() == MODEL
    assert (top / "out" / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (top / "empty").read_bytes() == b""
    assert os.readlink(top / "out" / "latest") == "model.bin"
    assert not list(top.rglob("*.part"))
    assert b"4 files" in done.stderr


def test_a_job_goes_to_the_folder_itself_and_twice_is_once(cli: Cli, state: State, folder: Path) -> None:
    cli("artifacts", "download", JOB, "-o", str(folder / "o"))
    state.requests.clear()

    again = cli("artifacts", "download", JOB, "-o", str(folder / "o"))

    assert (folder / "o" / "out" / "model.bin").read_bytes() == MODEL
    assert b"4 already downloaded" in again.stderr
    assert not [request for request in state.requests if request.endswith("/file")]


def test_only_what_is_named(cli: Cli, folder: Path) -> None:
    assert cli("artifacts", "download", "brave", "train/out/run.sh", "empty", "-o", str(folder / "o")).returncode == 0
    assert sorted(path.name for path in (folder / "o").rglob("*") if path.is_file()) == ["empty", "run.sh"]
    assert cli("artifacts", "download", JOB, "out/", "-o", str(folder / "p")).returncode == 0
    assert (folder / "p" / "out" / "model.bin").exists()
    missed = cli("artifacts", "download", "brave", "out/modl.bin")
    assert missed.returncode == 2
    assert b"did you mean 'out/model.bin'?" in missed.stderr


def test_a_file_that_differs_is_kept_unless_forced(cli: Cli, folder: Path) -> None:
    (folder / "o" / "out").mkdir(parents=True)
    (folder / "o" / "out" / "run.sh").write_text("mine")

    kept = cli("artifacts", "download", JOB, "-o", str(folder / "o"))

    assert kept.returncode == 2
    assert b"nothing was downloaded" in kept.stderr
    assert b"--force" in kept.stderr
    assert [path.name for path in (folder / "o").rglob("*") if path.is_file()] == ["run.sh"]
    assert cli("artifacts", "download", JOB, "-o", str(folder / "o"), "--force").returncode == 0
    assert (folder / "o" / "out" / "run.sh").read_bytes() == b"#!/bin/sh\n"


def test_a_broken_transfer_goes_on_where_it_was(cli: Cli, state: State, folder: Path) -> None:
    state.cuts = [50_000, 30_000]

    assert cli("artifacts", "download", JOB, "out/model.bin", "-o", str(folder / "o")).returncode == 0
    assert (folder / "o" / "out" / "model.bin").read_bytes() == MODEL
    assert state.cuts == []


def test_an_interrupted_download_is_completed_by_the_next(cli: Cli, state: State, folder: Path) -> None:
    view = state.artifacts[0]
    part = _part(folder / "o", view)
    part.parent.mkdir(parents=True)
    part.write_bytes(MODEL[:90_000])
    state.files[JOB, view.path] = b"?" * 90_000 + MODEL[90_000:]

    done = cli("artifacts", "download", JOB, view.path, "-o", str(folder / "o"))

    assert done.returncode == 0, done.stderr
    assert (folder / "o" / view.path).read_bytes() == MODEL


def test_a_partial_file_that_is_wrong_is_thrown_away(cli: Cli, state: State, folder: Path) -> None:
    part = _part(folder / "o", state.artifacts[0])
    part.parent.mkdir(parents=True)
    part.write_bytes(b"garbage")

    assert cli("artifacts", "download", JOB, "-o", str(folder / "o")).returncode == 0
    assert (folder / "o" / "out" / "model.bin").read_bytes() == MODEL


def _part(folder: Path, view: ArtifactView) -> Path:
    name = hashlib.sha256(f"{view.path}\0{view.sha256}".encode()).hexdigest()[:24]
    return folder / Path(view.path).parent / f".dstack-{name}.part"


def test_bytes_that_do_not_verify_are_refused(cli: Cli, state: State, folder: Path) -> None:
    state.files[JOB, "out/model.bin"] = b"?" * len(MODEL)

    done = cli("artifacts", "download", JOB, "-o", str(folder / "o"))

    assert done.returncode == 125
    assert b"sha256 differs" in done.stderr
    assert not (folder / "o" / "out" / "model.bin").exists()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(state: State, path: str) -> None:
    with pytest.raises(StorageError):
        Item.of(store(state, path), under=None)


@pytest.mark.parametrize("link", ["/etc/passwd", "../..", "../../x", "a/../../../x", "a/..", ""])
def test_links_that_leave_the_folder_are_left_out(cli: Cli, state: State, folder: Path, link: str) -> None:
    store(state, "out/bad", b"", link=link)

    done = cli("artifacts", "download", JOB, "-o", str(folder / "o"))

    assert done.returncode == 0
    assert b"skipped" in done.stderr
    assert not os.path.lexists(folder / "o" / "out" / "bad")


def test_nothing_is_written_through_a_link(cli: Cli, folder: Path) -> None:
    (folder / "o").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "o" / "out").symlink_to(folder / "elsewhere")

    done = cli("artifacts", "download", JOB, "-o", str(folder / "o"), "--force")

    assert done.returncode == 2
    assert b"symbolic link" in done.stderr
    assert list((folder / "elsewhere").iterdir()) == []


def test_folders_arrive_with_their_modes_and_a_second_time(cli: Cli, state: State, folder: Path) -> None:
    make(state, out=0o2750, out__closed=0o555, out__empty=0o711, out__closed__deep=0)
    store(state, "out/closed/deep/x", b"deep")
    top = folder / "o" / "train"

    for already in (b"", b"5 already downloaded"):
        done = cli("artifacts", "download", "brave", "-o", str(folder / "o"))

        assert done.returncode == 0, done.stderr
        assert already in done.stderr
        found = {str(path.relative_to(top)): path.stat().st_mode & 0o7777 for path in top.rglob("*") if path.is_dir()}
        assert found == {"out": 0o2750, "out/closed": 0o555, "out/closed/deep": 0, "out/empty": 0o711}


def test_an_empty_folder_is_downloaded_by_name(cli: Cli, state: State, folder: Path) -> None:
    make(state, out=0o755, out__empty=0o700)

    done = cli("artifacts", "download", JOB, "out/empty", "-o", str(folder / "o"))

    assert done.returncode == 0, done.stderr
    assert [str(path.relative_to(folder / "o")) for path in (folder / "o").rglob("*")] == ["out", "out/empty"]


def test_only_empty_folders_are_artifacts_too(cli: Cli, state: State, folder: Path) -> None:
    state.artifacts.clear()
    make(state, empty=0o700)

    done = cli("artifacts", "download", JOB, "-o", str(folder / "o"))

    assert done.returncode == 0, done.stderr
    assert (folder / "o" / "empty").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_way_of_a_folder_stays(cli: Cli, state: State, folder: Path, kind: str) -> None:
    make(state, empty=0o700, empty__in=0o700)
    state.artifacts.clear()
    (folder / "o").mkdir()
    if kind == "file":
        (folder / "o" / "empty").write_text("mine")
    else:
        (folder / "o" / "empty").symlink_to(folder)

    done = cli("artifacts", "download", JOB, "-o", str(folder / "o"))

    assert done.returncode == 2
    assert b"empty is a" in done.stderr
    assert not (folder / "in").exists()
    assert [path.name for path in (folder / "o").iterdir()] == ["empty"]


def test_a_folder_with_an_unsafe_path_is_refused(cli: Cli, state: State, folder: Path) -> None:
    make(state, **{"../away": 0o755})

    done = cli("artifacts", "download", JOB, "-o", str(folder / "o"))

    assert done.returncode == 125
    assert b"unsafe path" in done.stderr
    assert not (folder / "away").exists()
