"""The host scripts that fill the mirror and check out a job's tree."""

from __future__ import annotations

import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dstack.plumbing.trees import entries
from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import start, write


@pytest.fixture
def road(tmp_path: Path) -> Road:
    return Road(tmp_path / "road")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = start(tmp_path / "project")
    write(root / "train.py", "changed\n")
    return root


def test_the_same_tree_again_costs_nothing(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    road.launch(snapshot)
    answer = road.checkout(snapshot, "b")
    assert answer.values == {"reached": "end"}
    assert manifest(road.job("b") / "workflow") == manifest(road.job("a") / "workflow")


def test_what_the_host_has_is_said(project: Path, road: Road) -> None:
    first = road.submit(project)
    assert road.checkout(first).values == {"need": "code", "commits": "", "trees": "", "histories": ""}
    road.launch(first)
    write(project / "train.py", "changed again\n")
    second = road.submit(project)
    answer = road.checkout(second, "b")
    assert answer.values == {"need": "code", "commits": f"{first.commit} ", "trees": f"{first.tree} ", "histories": ""}


def test_a_checkout_is_made_once(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    tree = road.launch(snapshot)
    write(tree / "made-by-the-job", "x")
    assert road.checkout(snapshot).values == {"reached": "end"}
    assert (tree / "made-by-the-job").exists()


def test_half_a_checkout_is_made_again(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    tree = road.launch(snapshot)
    whole = manifest(tree)
    (road.job("a") / "tree").unlink()
    (tree / "train.py").unlink()
    write(tree / "stale", "x")
    assert road.checkout(snapshot).values == {"reached": "end"}
    assert manifest(tree) == whole


def test_modes_do_not_depend_on_the_umask(project: Path, road: Road) -> None:
    tree = road.launch(road.submit(project))
    for path in (tree, *tree.rglob("*")):
        if path.is_symlink() or ".git" in path.parts:
            continue
        wanted = 0o755 if path.is_dir() or path.name == "run.sh" else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    for path in (road.host_mirror / "objects", *(road.host_mirror / "objects").rglob("*")):
        assert path.stat().st_mode & 0o004, path
    assert stat.S_IMODE(road.base.stat().st_mode) == 0o700


def test_git_answers_as_it_does_at_home(project: Path, road: Road) -> None:
    git(project, "checkout", "-q", "-b", "feature/x")
    write(project / "new file", "x")
    (project / "lib/a.py").unlink()
    (project / "run.sh").chmod(0o644)
    write(project / "dos.txt", b"a\r\n")
    tree = road.launch(road.submit(project))
    for question in (
        ("rev-parse", "HEAD"),
        ("rev-parse", "--abbrev-ref", "HEAD"),
        ("log", "-1", "--format=%H %an %s"),
        ("status", "--porcelain", "-z"),
        ("diff",),
        ("diff", "--cached"),
        ("ls-files", "-s"),
        ("remote",),
    ):
        assert road.in_job(tree, *question) == git(project, *question), question
    assert not (tree / ".git/hooks").exists()
    assert (tree / ".git/info/attributes").read_bytes() == b""
    assert (tree / ".git/objects/info/alternates").read_text() == "/.dstack/objects\n"
    assert road.in_job(tree, "log", "--format=%s") == b"second\n", "depth 1"


def test_nothing_but_the_objects_is_taken_from_the_mirror(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    road.launch(snapshot)
    tree = road.launch(snapshot, "b")
    before = {path: path.stat().st_mtime_ns for path in road.host_mirror.rglob("*")}
    git(tree, "-c", "core.fsmonitor=false", "status", ok=False)
    write(tree / "x", "x")
    road.in_job(tree, "add", "x")
    assert {path: path.stat().st_mtime_ns for path in road.host_mirror.rglob("*")} == before


def test_without_git_there_is_none(tmp_path: Path, road: Road) -> None:
    write(tmp_path / "folder/.dstack/workflows.yaml")
    tree = road.launch(road.submit(tmp_path / "folder"))
    assert not (tree / ".git").exists()
    assert not (road.job("a") / "git").exists()


def test_ten_packs_at_once(project: Path, road: Road) -> None:
    snapshots = []
    for number in range(10):
        write(project / "train.py", f"version {number % 7}\n")
        snapshots.append(road.submit(project))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda at: road.launch(snapshots[at], f"job-{at}"), range(10)))

    for at in range(10):
        content = (road.job(f"job-{at}") / "workflow/train.py").read_text()
        assert content == f"version {at % 7}\n"
    assert git(road.host_mirror, "fsck") == b""
    assert not (road.host_mirror / "in").exists()


def test_a_mirror_without_its_objects_is_filled_again(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    whole = manifest(road.launch(snapshot))
    for pack in (road.host_mirror / "objects/pack").iterdir():
        pack.unlink()
    assert manifest(road.launch(snapshot, "b")) == whole
    assert git(road.host_mirror, "fsck") == b""


def unpack(mirror: Path) -> None:
    """Make the objects loose, so that a single one can be damaged."""
    packs = list((mirror / "objects/pack").iterdir())
    aside = mirror.parent / "aside"
    aside.mkdir()
    for pack in packs:
        pack.rename(aside / pack.name)
    for pack in aside.glob("*.pack"):
        with pack.open("rb") as file:
            subprocess.run(["git", "-C", mirror, "unpack-objects", "-q"], stdin=file, check=True)


@pytest.mark.parametrize("harm", ["deleted", "emptied", "garbled"])
@pytest.mark.parametrize("name", ["train.py", "lib/a.py"])
def test_a_damaged_object_is_repaired(harm: str, name: str, project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    whole = manifest(road.launch(snapshot))
    unpack(road.host_mirror)
    found = {path: oid for _, oid, _, path in entries(road.mirror._git(), snapshot.tree)}
    oid = found[name.encode()]
    victim = road.host_mirror / "objects" / oid[:2] / oid[2:]
    victim.chmod(0o644)
    if harm == "deleted":
        victim.unlink()
    else:
        victim.write_bytes(b"" if harm == "emptied" else os.urandom(40))

    assert road.checkout(snapshot, "b").values == {"need": "code"}
    with road.mirror.pack(snapshot, [snapshot.commit or "", snapshot.tree]) as pack:
        assert road.receive(snapshot, pack.read_bytes()).values == {"need": "full"}
    assert manifest(road.launch(snapshot, "b")) == whole
    assert not (road.host_mirror / "damaged").exists()
    assert manifest(road.launch(snapshot, "c")) == whole


def test_half_a_mirror_is_mended(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    whole = manifest(road.launch(snapshot))
    (road.host_mirror / "config").write_text("[core\n")
    (road.host_mirror / "HEAD").unlink()
    (road.host_mirror / "refs/dstack/trees" / snapshot.tree).write_text("")
    (road.host_mirror / "refs/dstack/trees/x.lock").write_text("")
    (road.host_mirror / "objects/pack/tmp_pack_x").write_text("")
    write(project / "train.py", "another\n")
    second = road.submit(project)
    assert manifest(road.launch(second, "b")) != whole
    assert manifest(road.launch(snapshot, "c")) == whole
    assert git(road.host_mirror, "fsck") == b""


def test_a_pack_that_is_cut_short(project: Path, road: Road) -> None:
    snapshot = road.submit(project)
    with road.mirror.pack(snapshot) as pack:
        content = pack.read_bytes()
    assert road.receive(snapshot, content[:-30]).values == {"need": "full"}
    assert road.checkout(snapshot).values["need"] == "code"
    assert road.receive(snapshot, content).values == {"received": "ok"}
