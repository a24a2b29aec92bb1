"""Artifacts that stay on the host: kept, copied and removed, with every shell that a host may have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.commands.artifacts.collect import listing
from dstack.commands.artifacts.retain import Copied, free, keep, reuse
from dstack.model.job.manifest import File
from dstack.model.project.workflow import Artifact
from tests.unit.commands.hosts import Folder, busybox

ARTIFACTS = (Artifact(path="out"), Artifact(path="deep/er/file"), Artifact(path="gone", optional=True))


@pytest.fixture(params=["sh", "bash", "busybox"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "busybox":
        programs = busybox(tmp_path / "programs")
        yield Folder(tmp_path / "root", (f"{programs}/sh",), programs)
    else:
        yield Folder(tmp_path / "root", (request.param,))


def collected(host: Folder, attempt: str) -> tuple[File, ...]:
    """Make a job that was collected; return its files as they were listed."""
    tree = host.job(attempt)
    (tree / "out" / "closed").mkdir(parents=True)
    (tree / "out" / "closed" / "it's\na").write_text("one")
    (tree / "out" / "x").write_text("two")
    (tree / "out" / "x").chmod(0o755)
    (tree / "out" / "link").symlink_to("x")
    (tree / "out" / "closed").chmod(0)
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "file").write_text("three")
    (tree / "other").write_text("no artifact")
    found = host.ask(listing(host.context, attempt, "", "image", ARTIFACTS))
    assert (found.missing, found.refused) == ((), ())
    return found.files


def kept(host: Folder, attempt: str) -> bool:
    return host.ask(keep(host.context, attempt, "", "image", ARTIFACTS))


def tree_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Return every file and link in the folder, with its mode."""
    found = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path.relative_to(folder)): (path.lstat().st_mode & 0o777, content(path)) for path in found}


def content(path: Path) -> str:
    return os.readlink(path) if path.is_symlink() else path.read_text()


WHOLE = {
    "deep/er/file": (0o644, "three"),
    "out/closed/it's\na": (0o644, "one"),
    "out/link": (0o777, "x"),
    "out/x": (0o755, "two"),
}


def test_what_was_kept_is_copied_whole(host: Folder) -> None:
    links = [file for file in collected(host, "j1") if file.link is not None]
    assert kept(host, "j1")
    assert not (host.base / "jobs/j1").exists()

    assert host.ask(reuse(host.context, "j2", ["j1"], links)) == {"j1": Copied(3, 11)}

    copy = host.base / "jobs/j2/gathered"
    assert tree_of(copy) == WHOLE
    assert (copy / "out/closed").stat().st_mode & 0o777 == 0o755
    (copy / "out/x").write_text("mine now")
    assert (host.base / "kept/j1/tree/out/x").read_text() == "two"
    assert host.ask(reuse(host.context, "j3", ["j1"], links)) == {"j1": Copied(3, 11)}


@pytest.mark.parametrize("touched", ["written", "same time", "removed", "added"])
def test_what_was_touched_is_not_used(host: Folder, touched: str) -> None:
    collected(host, "j1")
    assert kept(host, "j1")
    file = host.base / "kept/j1/tree/out/x"
    before = file.stat()
    if touched in ("written", "same time"):
        file.write_text("TWO")
    if touched == "same time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    if touched == "removed":
        file.unlink()
    if touched == "added":
        (file.parent / "y").touch()

    if touched == "same time" and host.path:
        pytest.skip("busybox tells seconds only")
    assert host.ask(reuse(host.context, "j2", ["j1", "j0"], [])) == {}
    assert not (host.base / "kept/j1").exists()


def test_what_was_touched_between_the_listing_and_the_end_is_not_kept(host: Folder) -> None:
    collected(host, "j1")
    (host.base / "jobs/j1/workflow/out/x").write_text("other")

    assert not kept(host, "j1")
    assert list((host.base / "kept").iterdir()) == []
    assert not (host.base / "jobs/j1").exists()


def test_it_may_be_cut_off_anywhere(host: Folder) -> None:
    """The states after a kill: in the middle of moving, and between the moves and the removal of the rest."""
    collected(host, "j1")
    job, half = host.base / "jobs/j1", host.base / "kept/j1.new/tree"
    half.mkdir(parents=True)
    shutil.move(job / "made/out", half / "out")
    assert not kept(host, "j1")
    assert (job.exists(), list((host.base / "kept").iterdir())) == (False, [])

    collected(host, "j2")
    shutil.copytree(host.base / "jobs/j2", host.base / "again", symlinks=True)
    assert kept(host, "j2")
    (host.base / "again").rename(host.base / "jobs/j2")
    assert kept(host, "j2")
    assert not (host.base / "jobs/j2").exists()
    assert host.ask(reuse(host.context, "j3", ["j2"], [])) == {"j2": Copied(3, 11)}

    collected(host, "j4")
    moved = host.base / "kept/j4.new"
    moved.mkdir()
    shutil.move(host.base / "jobs/j4/made", moved / "tree")
    shutil.move(host.base / "jobs/j4/hashed", moved / "hashed")
    (moved / "tree/out/link").unlink()
    assert kept(host, "j4")
    assert host.ask(reuse(host.context, "j5", ["j4"], [])) == {"j4": Copied(3, 11)}


def test_the_oldest_are_freed_until_there_is_room(host: Folder, tmp_path: Path) -> None:
    if host.path:
        pytest.skip("busybox has a df of its own")
    for attempt in ("j1", "j2", "j3"):
        collected(host, attempt)
        assert kept(host, attempt)
    # A disk that has 100 KiB more for each that goes.
    programs = tmp_path / "df"
    programs.mkdir()
    (programs / "df").write_text(
        f'#!/bin/sh\nset -- {host.base}/kept/*\necho head\necho "d 1000 0 $((1000 - $# * 100)) 0% /"\n'
    )
    (programs / "df").chmod(0o755)
    small = Folder(host.root, host.shell, f"{programs}:{host.path or os.environ['PATH']}")

    freed = small.ask(free(small.context, ["j1", "j2", "j3"], 800 * 1024))

    assert (freed.attempts, freed.disk_free) == (("j1",), 800 * 1024)
    assert small.ask(free(small.context, ["j1", "j2"])).attempts == ("j1", "j2")
    assert [path.name for path in (host.base / "kept").iterdir()] == ["j3"]
