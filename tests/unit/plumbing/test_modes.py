"""Permissions and empty folders: what a snapshot records of them, and what the server refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dstack.errors import UsageError
from dstack.mirror.mirror import Mirror
from dstack.model.code.snapshot import Snapshot
from dstack.plumbing.git import Git, make_bare
from dstack.plumbing.modes import Modes, load
from dstack.plumbing.trees import make_tree
from dstack.snapshot.blobs import Blobs
from dstack.snapshot.permissions import store
from dstack.snapshot.take import take
from tests.unit.commands.hosts import busybox
from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import CASES, commit, start, under, write


@pytest.fixture
def road(tmp_path: Path) -> Road:
    return Road(tmp_path / "road")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return start(tmp_path / "project")


def taken(root: Path) -> Snapshot:
    with take(root) as found:
        return found.snapshot


def test_a_usual_tree_says_nothing(project: Path) -> None:
    found = taken(project)
    assert (found.umask, found.modes) == ("022", None)
    assert b"modes" not in msgspec.json.encode(found)
    assert b"umask" not in msgspec.json.encode(found)


@pytest.mark.parametrize("umask", [0o002, 0o007, 0o027, 0o077, 0o000])
def test_a_umask_is_all_that_its_tree_says(umask: int, tmp_path: Path) -> None:
    found = taken(under(umask, start, tmp_path / "project"))
    assert (found.umask, found.modes) == (f"{umask:03o}", None)


def test_few_that_differ_are_named(project: Path, road: Road) -> None:
    (project / "lib").chmod(0o2775)
    (project / "train.py").chmod(0o600)
    (project / "data/raw").mkdir(parents=True)
    snapshot = road.submit(project)
    found = road.mirror.modes_of(snapshot)
    assert found == Modes([(0o600, [b"train.py"]), (0o2775, [b"lib"])], [b"data/raw"])
    assert road.mirror.diff(snapshot) == b"# mode 2775 lib\n# mode 0600 train.py\n# empty folder data/raw\n"


def test_another_content_is_no_other_list(project: Path) -> None:
    (project / "train.py").chmod(0o600)
    first = taken(project)
    write(project / "lib/a.py", "changed\n")
    second = taken(project)
    assert first.modes
    assert (first.modes, first.tree == second.tree) == (second.modes, False)


def test_a_setuid_file_does_not_lend_rights_there(project: Path, road: Road) -> None:
    (project / "run.sh").chmod(0o6755)
    assert (road.launch(road.submit(project)) / "run.sh").stat().st_mode & 0o7777 == 0o755


def test_a_mode_that_changes_while_it_is_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Blobs.store

    def meddle(self: Blobs, file: bytes, known: os.stat_result) -> str:
        (project / "lib").chmod((project / "lib").stat().st_mode ^ 0o020)
        return whole(self, file, known)

    write(project / "new.py")
    monkeypatch.setattr(Blobs, "store", meddle)
    with pytest.raises(UsageError, match="lib changed while it was read"):
        taken(project)


def test_git_tells_the_same_of_what_was_closed(project: Path, road: Road) -> None:
    (project / "lib").chmod(0o555)
    (project / "train.py").chmod(0o400)
    write(project / "lib/b.py", "changed\n", 0o444)
    tree = road.launch(road.submit(project))
    for question in (("status", "--porcelain"), ("diff",), ("ls-files", "-s")):
        assert road.in_job(tree, *question) == git(project, *question)


def test_it_is_kept_as_long_as_its_run(project: Path, tmp_path: Path, road: Road) -> None:
    (project / "train.py").chmod(0o600)
    (project / "data").mkdir()
    snapshot = road.submit(project)
    whole = manifest(road.launch(snapshot))
    assert road.checkout(snapshot, "b").values == {"reached": "end"}, "nothing is sent for the same tree"

    road.mirror.collect([snapshot], older_than=0)
    other = Road(tmp_path / "other", road.repo)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/server").symlink_to(tmp_path / "road/server")
    assert manifest(other.launch(snapshot)) == whole


def test_where_busybox_is_all_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, road: Road) -> None:
    root = CASES["modes_of_every_kind"](tmp_path / "project")
    (root / "ignored.bin").unlink()
    for name in (b"-x", b"\xff\n'", b"a b"):
        (root / os.fsdecode(b"empty/" + name)).mkdir(parents=True)
    expected = manifest(root)
    beside = {name: shutil.which(name) for name in ("git", "flock")}
    programs = busybox(tmp_path / "programs")
    for name, program in beside.items():
        (Path(programs) / name).unlink(missing_ok=True)
        (Path(programs) / name).symlink_to(program or "")
    monkeypatch.setenv("PATH", programs)

    tree = road.launch(road.submit(root))

    assert manifest(tree) == expected


HARM = {
    "absolute": ([(0o777, [b"/etc"])], []),
    "upwards": ([(0o777, [b"../host"])], []),
    "through a link": ([(0o777, [b"outside/x"])], []),
    "a link": ([(0o777, [b"outside"])], []),
    "a link to a folder": ([(0o777, [b"outside/"])], []),
    "from within": ([(0o777, [b"lib/../../x"])], []),
    "nothing of the tree": ([(0o777, [b"other"])], []),
    "setuid": ([(0o4755, [b"run.sh"])], []),
    "setuid at first": ([(0o4755, [b"run.sh"]), (0o755, [b"run.sh"])], []),
    "setuid of a folder": ([(0o4755, [b"lib"])], []),
    "git's own": ([(0o777, [b".git"])], []),
    "empty, upwards": ([], [b"../x"]),
    "empty, through a link": ([], [b"outside/x"]),
    "empty, in place of a link": ([], [b"outside"]),
    "empty, below a file": ([], [b"run.sh/x"]),
    "empty, git's own": ([], [b".git/hooks"]),
    "empty, absolute": ([], [b"/tmp/x"]),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_client_that_means_harm(harm: str, project: Path, tmp_path: Path) -> None:
    (project / "outside").symlink_to(tmp_path)
    commit(project)
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as found:
        mirror.receive(found.snapshot, found.full_pack())
        scratch = found.scratch / "git"
        tree = store(Blobs(scratch, "sha1"), Modes(*HARM[harm]))
        assert tree
        snapshot = msgspec.structs.replace(found.snapshot, modes=tree)
        pack = packed(tmp_path / "pack", scratch, tree)
    with pytest.raises(UsageError, match="list of modes"):
        mirror.receive(snapshot, pack)
    assert not (mirror.path / "refs/dstack/trees" / tree).exists()


@pytest.mark.parametrize("path", ["both/x", "both"])
def test_a_tree_that_means_harm(path: str, project: Path, tmp_path: Path) -> None:
    """A path that is both a link and something else could become either."""
    with take(project) as found:
        scratch = found.scratch / "git"
        own, blobs = Git.within(scratch), Blobs(scratch, "sha1")
        file = f"100644 blob {blobs.add(b'x')}"
        inside = own.run("mktree", stdin=f"{file}\tx\n".encode()).decode().strip()
        other = file if path == "both" else f"040000 tree {inside}"
        both = f"120000 blob {blobs.add(str(tmp_path).encode())}\tboth\n{other}\tboth\n"
        tree = own.run("mktree", stdin=both.encode()).decode().strip()
        modes = store(blobs, Modes([(0o777, [path.encode()])]))
        snapshot = Snapshot(repo="r", tree=tree, modes=modes)
        pack = packed(tmp_path / "pack", scratch, tree, modes or "")
    with pytest.raises(UsageError, match="list of modes"):
        Mirror(tmp_path / "mirror.git").receive(snapshot, pack)


def packed(target: Path, repository: Path, *trees: str) -> Path:
    objects = git(repository, "rev-list", "--objects", *trees)
    with target.open("wb") as file:
        subprocess.run(
            ["git", "-C", repository, "pack-objects", "--stdout", "-q"], input=objects, stdout=file, check=True
        )
    return target


@pytest.mark.parametrize(
    "entries",
    [
        [("100644", b"./run.sh\0", b"0000-9999")],
        [("100644", b"./run.sh\0", b"0000-0600 -R")],
        [("100644", b"./run.sh\0", b"$(id)-0600")],
        [("120000", b"./run.sh\0", b"0000-0600")],
        [("100644", b"./run.sh", b"0000-0600")],
        [("100644", b"run.sh\0", b"0000-0600")],
    ],
)
def test_a_tree_that_is_no_list(entries: list[tuple[str, bytes, bytes]], tmp_path: Path) -> None:
    make_bare(tmp_path, "sha1")
    blobs = Blobs(tmp_path, "sha1")
    tree = make_tree(blobs.git(), [(mode, blobs.add(content), name) for mode, content, name in entries])
    with pytest.raises(UsageError, match="list of modes"):
        load(blobs.git(), tree)


@pytest.mark.parametrize("umask", ["777", "22", "0022", "02", "022; id", "-S"])
def test_a_umask_that_is_none(umask: str, project: Path, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as found:
        snapshot, pack = msgspec.structs.replace(found.snapshot, umask=umask), found.full_pack()
        with pytest.raises(UsageError, match="umask"):
            mirror.receive(snapshot, pack)


def counted(road: Road, root: Path) -> dict[str, tuple[str, str]]:
    snapshot = road.submit(root)
    return {file.path: (file.mode, file.id) for file in road.mirror.files(snapshot)}


def test_what_a_umask_takes_does_not_count(tmp_path: Path, project: Path, road: Road) -> None:
    usual = counted(road, project)
    for umask in (0o002, 0o077):
        assert counted(road, under(umask, start, tmp_path / f"{umask:o}")) == usual
    (project / "train.py").chmod(0o604)
    (project / "run.sh").chmod(0o750)
    (project / "lib").chmod(0o2770)
    assert counted(road, project) == usual


def test_what_the_owner_may_do_counts(project: Path, road: Road) -> None:
    usual = counted(road, project)
    (project / "train.py").chmod(0o444)
    (project / "run.sh").chmod(0o500)
    (project / "lib").chmod(0o555)
    (project / "data").mkdir()
    found = counted(road, project)
    assert {path: about for path, about in found.items() if about != usual.get(path)} == {
        "train.py": ("100444", usual["train.py"][1]),
        "run.sh": ("100555", usual["run.sh"][1]),
        "lib/": ("040555", ""),
        "data/": ("040755", ""),
    }


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree that is large enough for a spare checkout."""
    root = start(tmp_path / "large")
    (root / "ignored.bin").unlink()
    for number in range(1300):
        write(root / f"many/{number % 20}/{number}.py", f"{number}\n")
    commit(root)
    return root


def shipped(road: Road, project: Path) -> Snapshot:
    snapshot = road.submit(project)
    with road.mirror.pack(snapshot) as pack:
        road.receive(snapshot, pack.read_bytes())
    return snapshot


def test_a_tree_that_was_kept_ready_fits_its_umask_alone(large: Path, tmp_path: Path, road: Road) -> None:
    ready = road.spare(shipped(road, large))
    inode = (ready / "tree/many/7/7.py").stat().st_ino
    under(0o002, lambda root: root, large)

    theirs = shipped(road, large)
    assert theirs.umask == "002"
    assert road.checkout(theirs, "a").values["reached"] == "end"
    assert manifest(road.job("a") / "workflow") == manifest(large)
    assert (ready / "tree/many/7/7.py").stat().st_ino == inode

    road.spare(theirs)
    kept = ready.with_name(f"{ready.name}-002") / "tree/many/7/7.py"
    inode = kept.stat().st_ino
    (large / "many/7/7.py").chmod(0o400)
    (large / "many/8").chmod(0o500)
    (large / "many/9/empty").mkdir(mode=0o700)
    last = shipped(road, large)
    assert road.checkout(last, "b").values["reached"] == "end"
    tree = road.job("b") / "workflow"
    assert (tree / "many/7/7.py").stat().st_ino == inode
    assert manifest(tree) == manifest(large)
    for question in (("status", "--porcelain", "-z"), ("diff", "--binary"), ("ls-files", "-s")):
        assert road.in_job(tree, *question) == git(large, *question)


HALF = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests.unit.snapshot.shipping import Road, manifest
project, there, other, warm = map(Path, sys.argv[1:])
first = Road(warm)
first.launch(first.submit(other))  # imports what it needs: the other user may be unable to read it
os.setuid(65534)
road = Road(there)
snapshot = road.submit(project)
tree = road.launch(snapshot)
assert manifest(tree) == manifest(project)
(road.job("a") / "tree").unlink()
assert road.checkout(snapshot).values == {"reached": "end"}
assert manifest(tree) == manifest(project)
print("whole")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_who_is_not_root_can_begin_again(project: Path, tmp_path: Path) -> None:
    """Only root can remove what is in a folder that its owner can't write to."""
    (project / "ignored.bin").unlink()
    (project / "lib").chmod(0o555)
    (project / "lib/deep/er").mkdir(parents=True)
    (project / "lib/deep").chmod(0o500)
    project.chmod(0o500)
    (tmp_path / "road").mkdir()
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    other = start(tmp_path / "other")
    for folder in tmp_path.parents[:-2]:
        folder.chmod(0o755)
    program = [sys.executable, "-c", HALF, project, tmp_path / "road", other, tmp_path / "warm"]
    done = subprocess.run(program, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)})
    assert done.stdout == "whole\n", done.stderr
