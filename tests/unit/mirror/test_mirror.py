from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.errors import UsageError
from dstack.mirror.mirror import Mirror, MissingBaseError
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import git
from tests.unit.snapshot.trees import commit, start, write


def leftovers(mirror: Mirror) -> list[str]:
    names = [path.name for path in mirror.path.rglob("*")]
    return [name for name in names if name.startswith(("in-", "out-", "tmp_")) or name.endswith((".lock", ".new"))]


def test_a_thin_pack_needs_its_base_and_leaves_nothing_without(tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    write(project / "train.py", "x\n")
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as taken:
        with pytest.raises(MissingBaseError):
            mirror.receive(taken.snapshot, taken.pack())
        assert not mirror.has(taken.snapshot)
        assert not list((mirror.path / "objects/pack").iterdir())
        assert leftovers(mirror) == []

        mirror.receive(taken.snapshot, taken.full_pack())
        assert mirror.has(taken.snapshot)
        mirror.receive(taken.snapshot, taken.pack())
    assert leftovers(mirror) == []
    assert git(mirror.path, "fsck", "--strict") == b""
    assert git(mirror.path, "log", "--format=%s", taken.snapshot.commit or "") == b"second\n"


def test_the_next_edit_costs_a_few_hundred_bytes(tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as taken:
        mirror.receive(taken.snapshot, taken.full_pack())
    before = taken.snapshot
    with (project / "train.py").open("a") as file:
        file.write("one more\n")
    with take(project) as taken:
        assert taken.pack().stat().st_size < 600
        mirror.receive(taken.snapshot, taken.pack())
    with mirror.pack(taken.snapshot, [before.commit or "", before.tree]) as pack:
        assert pack.stat().st_size < 600
    with mirror.pack(taken.snapshot, [taken.snapshot.commit or "", taken.snapshot.tree]) as pack:
        assert pack.stat().st_size == 32, "an empty pack"
    with mirror.pack(taken.snapshot, ["0" * 40]) as pack:
        assert pack.stat().st_size > 600, "a base that the mirror lacks does not count"
    assert leftovers(mirror) == []


def test_ten_submissions_at_once(tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    mirror = Mirror(tmp_path / "mirror.git")
    takes = []
    with ExitStack() as stack:
        for number in range(10):
            write(project / "train.py", f"version {number % 7}\n")
            takes.append(stack.enter_context(take(project)))

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda taken: Mirror(mirror.path).receive(taken.snapshot, taken.full_pack()), takes))

    for taken in takes:
        assert mirror.has(taken.snapshot)
    assert git(mirror.path, "fsck") == b""


def test_a_lost_object_is_noticed_and_comes_back_with_a_full_pack(tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as taken:
        mirror.receive(taken.snapshot, taken.full_pack())
        for pack in (mirror.path / "objects/pack").iterdir():
            pack.unlink()
        assert not mirror.has(taken.snapshot)
        with pytest.raises(MissingBaseError):
            mirror.receive(taken.snapshot, taken.pack())
        mirror.receive(taken.snapshot, taken.full_pack())
        assert mirror.has(taken.snapshot)


def test_what_a_killed_receiver_left_is_no_obstacle(tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as taken:
        refs = mirror.path / "refs/dstack/trees"
        refs.mkdir(parents=True)
        (refs / f"{taken.snapshot.tree}.lock").write_text("")
        (mirror.path / "in-old/pack").mkdir(parents=True)
        (mirror.path / "shallow.1.new").write_text("")

        mirror.receive(taken.snapshot, taken.full_pack())
    assert mirror.has(taken.snapshot)
    assert leftovers(mirror) == []


def test_files_changes_and_patch(tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    write(project / "train.py", b"\0binary now")
    write(project / os.fsdecode(b"n\xe9w"), "12345")
    (project / "lib/a.py").unlink()
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as taken:
        mirror.receive(taken.snapshot, taken.full_pack())
        changes = [(change.path, change.change, change.size) for change in taken.changes]
    snapshot = taken.snapshot

    assert sorted(changes) == [
        ("lib/a.py", "deleted", 0),
        (os.fsdecode(b"n\xe9w"), "added", 5),
        ("train.py", "modified", 11),
    ]
    seen = mirror.changes(snapshot.commit, snapshot.tree)
    assert sorted((change.path, change.change, change.size) for change in seen) == sorted(changes)
    files = {file.path: file.mode for file in mirror.files(snapshot)}
    assert files["run.sh"] == "100755"
    assert "lib/a.py" not in files
    assert {file.path for file in mirror.sizes(snapshot.tree)[:2]} == {".dstack/workflows.yaml", "train.py"}
    assert len(mirror.sizes(snapshot.tree)) == len(files)

    (tmp_path / "patch").write_bytes(mirror.diff(snapshot))
    git(project, "worktree", "add", "-q", str(tmp_path / "again"), "HEAD")
    git(tmp_path / "again", "apply", str(tmp_path / "patch"))
    assert (tmp_path / "again/train.py").read_bytes() == b"\0binary now"


def test_changes_without_a_commit_are_all_files(tmp_path: Path) -> None:
    write(tmp_path / "project/.dstack/workflows.yaml", "x")
    mirror = Mirror(tmp_path / "mirror.git")
    with take(tmp_path / "project") as taken:
        mirror.receive(taken.snapshot, taken.pack())
    changes = mirror.changes(None, taken.snapshot.tree)
    assert [(change.path, change.change, change.size) for change in changes] == [(".dstack/workflows.yaml", "added", 1)]


@pytest.mark.parametrize("field", ["tree", "commit"])
def test_an_id_is_nothing_else(field: str, tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as taken:
        bad = replace(taken.snapshot, **{field: "--output=/tmp/x"})
        with pytest.raises(UsageError):
            mirror.receive(bad, taken.full_pack())


def test_a_parent_that_is_known_as_another_snapshot(tmp_path: Path) -> None:
    project = start(tmp_path / "project")
    mirror = Mirror(tmp_path / "mirror.git")
    for number in range(3):
        write(project / "more.py", f"{number}\n")
        commit(project, f"commit {number}")
        with take(project) as taken:
            mirror.receive(taken.snapshot, taken.full_pack())
            assert git(mirror.path, "log", "--format=%s", taken.snapshot.commit or "") == f"commit {number}\n".encode()


def test_a_server_starts_without_gitpython() -> None:
    ask = "import sys, dstack.server.app; print('git' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", ask], text=True) == "False\n"
