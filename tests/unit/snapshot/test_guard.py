"""What keeps a forgotten folder from being sent: the size guard and `.dstackignore`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.errors import UsageError
from dstack.snapshot import blobs
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import commit, start, write


def huge(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_it_says_what_is_large_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = start(tmp_path / "project")
    huge(root / "data/raw/forgotten.bin", 40 * 10**9)
    huge(root / "data/raw/second.bin", 10**9)
    huge(root / "notes.bin", 5 * 10**6)
    huge(root / "lib/a.py", 2 * 10**9)
    monkeypatch.setattr(blobs, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UsageError) as refused, take(root):
        pass
    assert "43 GB of changed and untracked files, and the limit is 256 MB" in refused.value.message
    files, _, folders = refused.value.message.partition("largest folders:")
    lines = [line.split() for line in files.splitlines()[2:]]
    assert lines[:3] == [
        ["40", "GB", "data/raw/forgotten.bin"],
        ["2", "GB", "lib/a.py"],
        ["1", "GB", "data/raw/second.bin"],
    ]
    assert "41 GB  data/raw/\n" in folders + "\n"
    assert "add what the job does not need to .gitignore or .dstackignore" in (refused.value.hint or "")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("how", ["untracked", "staged", "modified", "no commit", "no git"])
def test_everything_that_differs_counts(how: str, tmp_path: Path) -> None:
    root = tmp_path / "project"
    if how in ("no commit", "no git"):
        write(root / ".dstack/workflows.yaml")
        if how == "no commit":
            git(root, "init", "-q")
    else:
        start(root)
    write(root / "train.py", "x" * 5000)
    if how == "untracked":
        write(root / "new.bin", "x" * 5000)
    if how in ("staged", "no commit"):
        git(root, "add", "train.py")
    with pytest.raises(UsageError, match=r"train\.py|new\.bin"), take(root, limit=4000):
        pass
    for limit in (20_000, 0):
        with take(root, limit=limit):
            pass


def test_what_the_commit_has_does_not_count(tmp_path: Path) -> None:
    root = start(tmp_path / "project")
    write(root / "big.bin", "x" * 5000)
    commit(root)
    (root / "big.bin").touch()
    with take(root, limit=4000):
        pass


def test_dstackignore_leaves_out_more(tmp_path: Path) -> None:
    root = start(tmp_path / "project")
    write(root / ".dstackignore", "# a comment\n/data/\n*.ckpt\n!keep.ckpt\n")
    write(root / "lib/.dstackignore", "b.py\n")
    for name in ("data/x", "deep/data/x", "a.ckpt", "deep/b.ckpt", "keep.ckpt"):
        write(root / name)
    write(root / "old.ckpt", "tracked")
    git(root, "add", "-f", "old.ckpt")
    git(root, "commit", "-qm", "tracked")
    road = Road(tmp_path / "road")
    snapshot = road.submit(root)
    tree = road.launch(snapshot)

    left = {b"data", b"data/x", b"a.ckpt", b"deep/b.ckpt", b"old.ckpt", b"lib/b.py", b"ignored.bin"}
    assert manifest(tree) == {path: about for path, about in manifest(root).items() if path not in left}
    said = road.in_job(tree, "status", "--porcelain", "-z", "--untracked-files=no")
    assert said == git(root, "status", "--porcelain", "-z", "--untracked-files=no") == b""


def test_dstackignore_without_git_and_within(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    for name in (".dstack/workflows.yaml", "a/x.py", "a/huge/x", "b.tmp"):
        write(root / name)
    write(root / ".dstackignore", "huge\n*.tmp\n")
    start(root / "vendor/huge")
    road = Road(tmp_path / "road")
    tree = road.launch(road.submit(root))
    folders = {b".", b".dstack", b"a", b"vendor"}
    assert set(manifest(tree)) == {b".dstack/workflows.yaml", b".dstackignore", b"a/x.py", *folders}


def test_a_submodule_may_be_left_out(tmp_path: Path) -> None:
    start(tmp_path / "library")
    root = start(tmp_path / "project")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "library"), "sub")
    write(root / ".dstackignore", "/sub/\n")
    commit(root)
    road = Road(tmp_path / "road")
    tree = road.launch(road.submit(root))
    assert not (tree / "sub").exists()
    assert road.in_job(tree, "status", "--porcelain") == b""
