"""Mirrors on the server and on hosts: garbage collection, and detection of damage."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dstack.mirror.mirror import Mirror, MissingBaseError
from dstack.plumbing.git import make_bare
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import commit, start, write


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


def test_what_is_garbled_after_the_submission_never_arrives(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    assert road.mirror.damage() is None
    garble(road.mirror.path)
    with road.mirror.pack(snapshot) as pack:
        assert road.receive(snapshot, pack.read_bytes()).values == {"need": "full"}
    damage = road.mirror.damage()
    assert damage is not None
    assert "run it again" in (damage.hint or "")
    assert road.mirror.damage() is None
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
    age(road.mirror.path)
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


def age(mirror: Path) -> None:
    """Make everything in the mirror old."""
    for path in [*mirror.glob("refs/dstack/*/*"), *mirror.glob("cuts/*")]:
        os.utime(path, (0, 0))


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_refs_that_someone_packed_are_kept_and_removed_as_others(
    object_format: str, tmp_path: Path, road: Road
) -> None:
    # given
    project = start(tmp_path / "project", f"--object-format={object_format}")
    write(project / "train.py", "new\n")
    unwanted = road.submit(project)
    git(project, "checkout", "-q", "train.py")
    wanted = road.submit(project)
    git(road.mirror.path, "pack-refs", "--all")
    assert not list(road.mirror.path.glob("refs/dstack/*/*"))
    assert {*unwanted.names, *wanted.names} <= {*road.mirror.newest()}
    assert not road.mirror.settled
    os.utime(road.mirror.path / "packed-refs", (0, 0))
    assert road.mirror.settled

    # when
    road.mirror.collect([wanted])

    # then
    assert road.mirror.has(wanted)
    assert not road.mirror.has(unwanted)
    assert {*road.mirror.newest()} == {*wanted.names}
    assert road.submit(project) == wanted
    assert not road.mirror.settled
    os.utime(road.mirror.path / "packed-refs", (0, 0))
    road.mirror.collect([])
    assert not road.mirror.path.exists()


def test_reading_refs_leaves_no_process_and_no_open_file(project: Path, road: Road) -> None:
    road.submit(project)
    road.mirror.newest()
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = (len(os.listdir("/proc/self/fd")), children.read_text())

    for _ in range(3):
        road.mirror.newest()
        assert not road.mirror.settled
        road.mirror.collect([])

    assert (len(os.listdir("/proc/self/fd")), children.read_text()) == before


def test_a_mirror_that_no_run_needs_goes(project: Path, road: Road) -> None:
    road.submit(project)
    age(road.mirror.path)
    road.mirror.collect([])
    assert not road.mirror.path.exists()
    assert road.mirror.has(road.submit(project))


def test_a_snapshot_that_came_again_is_young(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    age(road.mirror.path)
    road.submit(project)
    road.mirror.collect([])
    assert road.mirror.has(snapshot)


def test_what_lost_objects_is_no_obstacle_to_the_rest(project: Path, road: Road) -> None:
    lost = road.submit(project)
    pack = next((road.mirror.path / "objects/pack").glob("*.pack"))
    write(project / "train.py", os.urandom(3000))
    commit(project, "more")
    with take(project) as taken:
        road.mirror.receive(taken.snapshot, taken.full_pack())
    for part in pack.parent.glob(f"{pack.stem}.*"):
        part.unlink()
    road.mirror.collect([lost, taken.snapshot])
    assert road.mirror.packs == 1
    assert git(road.mirror.path, "fsck", "--no-dangling") == b""
    assert not road.mirror.has(lost)
    assert road.launch(taken.snapshot).exists()


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


def test_garbled_packs_on_a_host_are_replaced(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    whole = manifest(road.launch(snapshot))
    garble(road.host_mirror)
    assert manifest(road.launch(snapshot, "b")) == whole
    assert git(road.host_mirror, "fsck", "--no-dangling") == b""
    assert len(list((road.host_mirror / "objects/pack").glob("*.pack"))) == 1
    assert road.checkout(snapshot, "c").values == {"reached": "end"}


def test_repositories_that_were_not_used_for_a_month_go(project: Path, road: Road, tmp_path: Path) -> None:
    month = time.time() - 32 * 86400

    def launched(name: str) -> Path:
        other = start(tmp_path / name)
        road.launch(road.submit(other), name)
        return road.host_mirror

    unused, used, young = launched("unused"), launched("used"), launched("young")
    for mirror in (unused, used):
        os.utime(mirror, (month, month))
    (road.job("unused") / "uses").unlink()
    (road.job("young") / "uses").unlink()

    road.launch(road.submit(project))

    assert not unused.exists()
    assert used.exists()
    assert young.exists()
    assert road.launch(road.submit(tmp_path / "unused"), "again").exists()


def test_a_month_begins_anew_with_each_use(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    road.launch(snapshot)
    os.utime(road.host_mirror, (0, 0))
    road.launch(snapshot, "b")
    assert road.host_mirror.stat().st_mtime > time.time() - 86400


def test_what_killed_processes_left_is_swept(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    mirror = road.mirror.path
    left = [mirror / "in-killed", mirror / "out-killed", mirror / "objects/pack/tmp_pack_x", mirror / "HEAD.1.new"]
    for path in left[:2]:
        path.mkdir()
        (path / "pack").write_bytes(b"PACK")
    for path in left[2:]:
        path.write_bytes(b"half")

    road.mirror.sweep(time.time() - 60)
    assert all(path.exists() for path in left), "they may be in use"
    road.mirror.sweep(time.time() + 1)

    assert [path for path in left if path.exists()] == []
    assert road.mirror.has(snapshot)


def test_a_mirror_without_a_snapshot_is_swept(tmp_path: Path) -> None:
    half = Mirror(tmp_path / "repo.git")
    make_bare(half.path, "sha1")

    half.sweep(time.time() - 60)
    assert half.path.exists()
    half.sweep(time.time() + 1)

    assert not half.path.exists()
