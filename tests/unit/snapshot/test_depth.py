"""How much history a job has, and what it costs to send it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dstack.model.api import wire
from dstack.model.code.snapshot import Snapshot
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import ahead, commit, start, write


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two lines of history that meet, eleven commits in all."""
    root = start(tmp_path / "project")
    for number in range(4):
        write(root / "train.py", f"{number}\n")
        commit(root, f"main {number}")
    git(root, "checkout", "-q", "-b", "side", "HEAD~3")
    for number in range(3):
        write(root / "side.py", f"{number}\n")
        commit(root, f"side {number}")
    git(root, "checkout", "-q", "main")
    git(root, "merge", "-q", "-m", "merged", "side")
    write(root / "train.py", "last\n")
    commit(root, "last")
    return root


def subjects(road: Road, tree: Path) -> set[str]:
    return set(road.in_job(tree, "log", "--format=%s").decode().splitlines())


def at_depth(project: Path, depth: int, tmp_path: Path) -> set[str]:
    """Return the subjects in a clone of this depth made by git."""
    clone = tmp_path / f"clone-{depth}"
    options = ["--depth", str(depth)] if depth else []
    git(tmp_path, "clone", "-q", *options, f"file://{project}", str(clone))
    return set(git(clone, "log", "--format=%s").decode().splitlines())


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 100, 0])
def test_it_is_gits_own_depth(depth: int, project: Path, tmp_path: Path) -> None:
    road = Road(tmp_path / "road")
    tree = road.launch(road.submit(project, depth))
    assert subjects(road, tree) == at_depth(project, depth, tmp_path)
    assert road.in_job(tree, "fsck", "--no-dangling") == b""
    assert road.in_job(tree, "status", "--porcelain") == b""


def test_depths_of_one_repository_do_not_meet(project: Path, tmp_path: Path) -> None:
    road = Road(tmp_path / "road")
    depths = (1, 0, 2, 0, 1, 3)
    for number, depth in enumerate(depths):
        write(project / "more.py", f"{number}\n")
        commit(project, f"more {number}")
        tree = road.launch(road.submit(project, depth), f"job-{number}")
        assert subjects(road, tree) == at_depth(project, depth, _folder(tmp_path, number))
    assert git(road.mirror.path, "fsck", "--no-dangling") == b""
    assert git(road.host_mirror, "fsck", "--no-dangling") == b""


def test_each_job_has_the_depth_that_it_asked_for(project: Path, tmp_path: Path) -> None:
    road = Road(tmp_path / "road")
    snapshot = road.submit(project, 1, 3, 0)
    for depth in (1, 3, 0):
        tree = road.launch(snapshot, f"job-{depth}", depth)
        assert subjects(road, tree) == at_depth(project, depth, tmp_path)
        assert road.in_job(tree, "fsck", "--no-dangling") == b""


def test_a_stored_snapshot_of_an_earlier_version(project: Path, tmp_path: Path) -> None:
    """It may have an upstream, and ends although its depth is 1."""
    road = Road(tmp_path / "road")
    stored = json.loads(wire.encode(road.submit(project, 3)))
    stored |= {"depth": 1, "upstream": stored["commit"]}
    snapshot = wire.decode(json.dumps(stored).encode(), Snapshot)
    assert road.mirror.has(snapshot)
    assert subjects(road, road.launch(snapshot)) == at_depth(project, 1, tmp_path)


def test_commits_that_are_not_pushed_yet_change_no_depth(tmp_path: Path) -> None:
    project = ahead(tmp_path / "project")
    road = Road(tmp_path / "road")
    tree = road.launch(road.submit(project))
    assert road.in_job(tree, "log", "--format=%s") == git(project, "log", "-1", "--format=%s")
    assert road.in_job(tree, "status", "--porcelain") == git(project, "status", "--porcelain")
    assert road.in_job(tree, "remote") == b""


def _folder(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / f"clones-{number}"
    folder.mkdir()
    return folder


def test_the_next_commit_costs_little_with_all_of_the_history(project: Path, tmp_path: Path) -> None:
    road = Road(tmp_path / "road")
    write(project / "big.bin", os.urandom(200_000))
    commit(project, "big")
    road.launch(road.submit(project, 0))
    write(project / "train.py", "and one more\n")
    commit(project, "small")
    with take(project, depths=[0]) as taken:
        road.mirror.receive(taken.snapshot, taken.pack(tuple(road.mirror.newest())))
        assert (taken.scratch / "known.pack").stat().st_size < 1500
    known = road.checkout(taken.snapshot, "b").values
    with road.mirror.pack(taken.snapshot, [*known["histories"].split(), *known["trees"].split()]) as pack:
        assert pack.stat().st_size < 1500
    assert "small" in subjects(road, road.launch(taken.snapshot, "b"))


def test_the_next_commit_is_a_delta_for_the_server_too(project: Path, tmp_path: Path) -> None:
    road = Road(tmp_path / "road")
    write(project / "big.bin", os.urandom(200_000))
    commit(project, "big")
    before = road.launch(road.submit(project))
    write(project / "train.py", "and one more\n")
    commit(project, "small")
    with take(project) as taken:
        road.mirror.receive(taken.snapshot, taken.pack(tuple(road.mirror.newest())))
        assert (taken.scratch / "known.pack").stat().st_size < 1500
    after = road.launch(taken.snapshot, "b")
    assert manifest(after).keys() == manifest(before).keys()


def test_all_of_a_shallow_clone_is_what_it_has(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "3", f"file://{project}", "clone")
    road = Road(tmp_path / "road")
    tree = road.launch(road.submit(tmp_path / "clone", 0))
    assert subjects(road, tree) == at_depth(project, 3, tmp_path)
