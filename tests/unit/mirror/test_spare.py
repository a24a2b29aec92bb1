"""The spare checkout for the next job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import commit, start, write


@pytest.fixture
def road(tmp_path: Path) -> Road:
    return Road(tmp_path / "road")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is large enough for a spare checkout."""
    root = start(tmp_path / "project")
    (root / "ignored.bin").unlink()
    for number in range(1300):
        write(root / f"many/{number % 20}/{number}.py", f"{number}\n")
    commit(root, "many")
    return root


def change(root: Path) -> None:
    """Change the tree in every way."""
    write(root / "many/1/1.py", "changed\n")
    (root / "many/2/2.py").unlink()
    (root / "many/3/3.py").chmod(0o755)
    for number in range(4, 1300, 20):
        (root / f"many/4/{number}.py").unlink()
    (root / "many/4").rmdir()
    write(root / "many/4", "a file now\n")
    (root / "train.py").unlink()
    (root / "train.py").symlink_to("many/5/5.py")
    write(root / "added/deep/new.py")


def test_the_next_job_takes_it(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    assert road.checkout(snapshot).values["need"] == "code"
    with road.mirror.pack(snapshot) as pack:
        road.receive(snapshot, pack.read_bytes())
    assert road.checkout(snapshot).values == {"spare": "wanted", "reached": "end"}
    spare = road.spare(snapshot)
    kept = (spare / "tree/many/7/7.py").stat().st_ino

    change(project)
    latest = road.submit(project)
    assert road.checkout(latest, "b").values["need"] == "code"
    assert spare.exists(), "it waits for one that can begin"
    with road.mirror.pack(latest) as pack:
        road.receive(latest, pack.read_bytes())
    assert road.checkout(latest, "b").values == {"spare": "wanted", "reached": "end"}

    tree = road.job("b") / "workflow"
    assert (tree / "many/7/7.py").stat().st_ino == kept
    assert not spare.exists()
    assert not (road.job("b") / "spare").exists()
    assert manifest(tree) == manifest(project)
    for question in (("status", "--porcelain", "-z"), ("diff", "--binary"), ("ls-files", "-s")):
        assert road.in_job(tree, *question) == git(project, *question)


@pytest.fixture
def ready(project: Path, road: Road) -> Path:
    """The spare checkout of the project."""
    snapshot = road.submit(project)
    with road.mirror.pack(snapshot) as pack:
        road.receive(snapshot, pack.read_bytes())
    return road.spare(snapshot)


def checked_out(road: Road, project: Path, attempt: str) -> Path:
    snapshot = road.submit(project)
    if "need" in road.checkout(snapshot, attempt).values:
        with road.mirror.pack(snapshot) as pack:
            road.receive(snapshot, pack.read_bytes())
        assert road.checkout(snapshot, attempt).values["reached"] == "end"
    return road.job(attempt) / "workflow"


@pytest.mark.parametrize("harm", ["edited", "lost", "no index", "garbled index", "no tree"])
def test_it_is_not_trusted(harm: str, ready: Path, project: Path, road: Road) -> None:
    if harm == "edited":
        write(ready / "tree/many/7/7.py", "somebody else's\n")
    elif harm == "lost":
        (ready / "tree/many/7/7.py").unlink()
    elif harm == "no index":
        (ready / "index").unlink()
    elif harm == "garbled index":
        (ready / "index").write_bytes(b"DIRC and no more")
    else:
        (ready / "tree").rename(ready / "gone")
    assert manifest(checked_out(road, project, "a")) == manifest(project)


def test_it_is_brought_up_to_date(ready: Path, project: Path, road: Road) -> None:
    kept = (ready / "tree/many/7/7.py").stat().st_ino
    change(project)
    checked_out(road, project, "a")
    road.spare(road.submit(project))
    other = ready / "tree/many/7/7.py"
    assert other.stat().st_ino != kept
    change_again = project / "many/8/8.py"
    write(change_again, "changed\n")
    snapshot = road.submit(project)
    with road.mirror.pack(snapshot) as pack:
        road.receive(snapshot, pack.read_bytes())
    before = other.stat().st_ino
    road.spare(snapshot)
    assert other.stat().st_ino == before
    assert manifest(ready / "tree") == manifest(project)


def test_one_that_was_cut_off_is_made_anew(ready: Path, project: Path, road: Road) -> None:
    making = ready.with_suffix(".making")
    ready.rename(making)
    write(making / "tree/junk", "left\n")
    road.spare(road.submit(project))
    assert not making.exists()
    assert manifest(ready / "tree") == manifest(project)


def test_a_tree_that_is_too_large_is_not_kept(project: Path, road: Road) -> None:
    road.most = 100
    snapshot = road.submit(project)
    with road.mirror.pack(snapshot) as pack:
        road.receive(snapshot, pack.read_bytes())
    assert not road.spare(snapshot).exists()


def test_several_at_once(ready: Path, project: Path, road: Road) -> None:
    with ThreadPoolExecutor(4) as pool:
        snapshot = road.submit(project)
        jobs = [f"job-{number}" for number in range(4)]
        assert {answer.values["reached"] for answer in pool.map(lambda job: road.checkout(snapshot, job), jobs)} == {
            "end"
        }
        list(pool.map(lambda _: road.spare(snapshot), range(4)))
    for job in jobs:
        assert manifest(road.job(job) / "workflow") == manifest(project)
    assert manifest(ready / "tree") == manifest(project)
