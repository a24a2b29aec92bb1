"""Mirrors that grow are collected, and what is damaged is noticed, on the server and on a host."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dstack.errors import DstackError
from dstack.repo.mirror import MissingBaseError
from dstack.repo.snapshot import take
from tests.unit.repo.shipping import Road, git, manifest
from tests.unit.repo.trees import commit, start, write


@pytest.fixture
def road(tmp_path: Path) -> Road:
    return Road(tmp_path / "road")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return start(tmp_path / "project")


def garble(folder: Path) -> None:
    """Change bytes in the middle of every pack."""
    for pack in (folder / "objects/pack").glob("*.pack"):
        content = bytearray(pack.read_bytes())
        for at in range(len(content) // 3, len(content) // 3 + 40):
            content[at] ^= 0xFF
        pack.chmod(0o644)
        pack.write_bytes(content)


def test_garbled_objects_on_the_server_are_noticed_and_mended(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    garble(road.mirror.path)
    assert not road.mirror.has(snapshot)
    with take(project) as taken:
        with pytest.raises(MissingBaseError):
            road.mirror.receive(taken.snapshot, taken.pack())
        road.mirror.receive(taken.snapshot, taken.full_pack())
    assert road.mirror.has(snapshot)
    assert manifest(road.launch(snapshot)) == {
        path: about for path, about in manifest(project).items() if b"ignored" not in path
    }


def test_what_is_garbled_after_the_submission_is_never_shipped(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    garble(road.mirror.path)
    with (
        pytest.raises(DstackError, match="the server's copy of the code can't be read") as damaged,
        road.mirror.pack(snapshot),
    ):
        pytest.fail("a pack of damaged objects")
    assert "run it again" in (damaged.value.hint or "")
    road.submit(project)
    assert road.mirror.has(snapshot)


@pytest.mark.parametrize("depth", [1, 0])
def test_the_servers_mirror_keeps_what_runs_need(depth: int, project: Path, road: Road) -> None:
    snapshots = []
    for number in range(6):
        write(project / "train.py", f"{number}\n")
        if number % 2:
            commit(project, f"commit {number}")
        snapshots.append(road.submit(project, 1 if number == 1 else depth))
    for ref in road.mirror.path.glob("refs/dstack/*/*"):
        os.utime(ref, (0, 0))
    for file in road.mirror.path.glob("cuts/*"):
        os.utime(file, (0, 0))
    assert road.mirror.packs >= 6
    wanted = [snapshots[0], snapshots[1], snapshots[5]]

    road.mirror.collect(wanted)

    assert road.mirror.packs == 1
    assert git(road.mirror.path, "fsck", "--no-dangling") == b""
    assert all(road.mirror.has(snapshot) for snapshot in wanted)
    assert not road.mirror.has(snapshots[2])
    for number, snapshot in enumerate(wanted):
        assert road.launch(snapshot, f"job-{number}").exists()
    road.submit(project, depth)


def test_a_young_snapshot_may_be_about_to_become_a_run(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    road.mirror.collect([])
    assert road.mirror.has(snapshot)


def test_a_hosts_mirror_is_collected_and_jobs_keep_what_they_use(project: Path, road: Road) -> None:
    first = road.submit(project)
    tree = road.launch(first, "job-first")
    (road.job("job-first") / "uses").chmod(0o644)
    for number in range(55):
        write(project / "train.py", f"{number}\n")
        latest = road.submit(project)
        with road.mirror.pack(latest, [*first.names]) as pack:
            assert road.receive(latest, pack.read_bytes()).values == {"received": "ok"}
        for ref in road.host_mirror.glob("refs/dstack/*/*"):
            os.utime(ref, (time.time() - 1000 + number,) * 2)
    assert len(list((road.host_mirror / "objects/pack").glob("*.pack"))) < 20
    assert git(road.host_mirror, "fsck", "--no-dangling") == b""
    assert len(list((road.host_mirror / "refs/dstack/trees").iterdir())) < 55
    assert road.in_job(tree, "status", "--porcelain") == b""
    assert (road.host_mirror / "refs/dstack/trees" / first.tree).exists()
    assert road.launch(latest, "job-latest").exists()
