from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dstack.errors import UsageError
from dstack.snapshot import blobs, scratch
from dstack.snapshot import take as snapshot
from dstack.snapshot.listing import Listing
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import git, manifest
from tests.unit.snapshot.trees import commit, start, write

PROGRAM = """
import sys
from pathlib import Path
from dstack.snapshot.take import take
print("begins", flush=True)
with take(Path(sys.argv[1])) as taken:
    taken.pack(), taken.full_pack()
    print("has it", flush=True)
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_what_it_says(tmp_path: Path) -> None:
    root = start(tmp_path / "project")
    git(root, "remote", "add", "origin", "https://me:token@example.org/a.git")
    with take(root / "lib") as taken:
        found = taken.snapshot
    assert (found.url, found.branch, found.project, found.git) == ("https://example.org/a.git", "main", "lib", True)
    assert found.commit == git(root, "rev-parse", "HEAD").decode().strip()
    assert found.tree == git(root, "rev-parse", "HEAD^{tree}").decode().strip()
    assert not found.dirty
    write(root / "new.py")
    with take(root) as taken:
        assert taken.snapshot.dirty


def test_filtered_and_submodule_content_is_not_dirty(tmp_path: Path) -> None:
    library = start(tmp_path / "library")
    root = start(tmp_path / "project")
    git(root, "config", "filter.point.clean", "sha256sum")
    write(root / ".gitattributes", "*.big filter=point\n")
    write(root / "model.big", b"weights" * 1000)
    os.utime(root / "model.big", (10**9, 10**9))  # git trusts the time of a file only if it is a second older
    commit(root)
    with take(root) as taken:
        assert [change.path for change in taken.changes] == ["model.big"]
        assert not taken.snapshot.dirty
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
    commit(root)
    with take(root) as taken:
        assert not taken.snapshot.dirty
    write(root / "sub/train.py", "dirty\n")
    with take(root) as taken:
        assert taken.snapshot.dirty


def settle(root: Path) -> None:
    """Wait until the index is newer than the files: before that, git can't trust their times."""
    newest = max(path.lstat().st_mtime_ns for path in root.rglob("*") if ".git" not in path.parts)
    while (root / ".git/index").stat().st_mtime_ns <= newest:
        os.utime(root / ".git/index")


def test_unmodified_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = start(tmp_path / "project")
    settle(root)
    write(root / "train.py", "changed\n")
    read: list[bytes] = []
    original = blobs.read

    def spy(file: bytes, listed: os.stat_result) -> Iterator[bytes]:
        read.append(os.path.basename(file))
        return original(file, listed)

    monkeypatch.setattr(blobs, "read", spy)
    with take(root):
        assert set(read) == {b"train.py"}


def test_it_leaves_no_folder(tmp_path: Path, own_temporary_folder: Path) -> None:
    root = start(tmp_path / "project")
    with take(root) as taken:
        taken.full_pack()
        assert list(own_temporary_folder.iterdir())
    assert not list(own_temporary_folder.iterdir())
    with pytest.raises(UsageError), take(root / ".git"):
        pass
    assert not list(own_temporary_folder.iterdir())


def test_what_a_killed_one_left_is_removed_an_hour_later(tmp_path: Path, own_temporary_folder: Path) -> None:
    root = start(tmp_path / "project")
    abandoned, young = (Path(tempfile.mkdtemp(prefix=scratch.PREFIX)) for _ in range(2))
    with scratch.scratch_folder() as held:
        for folder in (abandoned, held):
            write(folder / "git/HEAD")
            os.utime(folder, (0, 0))

        with take(root):
            assert not abandoned.exists()
            assert young.exists()
            assert (held / "git/HEAD").exists()


def test_a_git_hooks_environment_does_not_mislead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = start(tmp_path / "other")
    write(other / "x.py")
    commit(other)
    root = start(tmp_path / "project")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nonsense"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "nonsense"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare'='true'")
    with take(root) as taken:
        assert taken.snapshot.tree == git(root, "rev-parse", "HEAD^{tree}").decode().strip()


def test_global_excludes_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = start(tmp_path / "project")
    write(tmp_path / "config", f"[core]\n\texcludesFile = {tmp_path}/excludes\n")
    write(tmp_path / "excludes", "*.swp\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    write(root / "a.swp")
    with take(root) as taken:
        assert taken.changes == []


def test_no_working_tree(tmp_path: Path) -> None:
    root = start(tmp_path / "project")
    git(tmp_path, "clone", "-q", "--bare", str(root), "bare.git")
    for folder in (tmp_path / "bare.git", tmp_path / "bare.git/objects", root / ".git/refs"):
        with pytest.raises(UsageError, match="no working tree"), take(folder):
            pass


def test_a_broken_repository_is_no_plain_folder(tmp_path: Path) -> None:
    write(tmp_path / "project/.git", "gitdir: /nowhere\n")
    with pytest.raises(UsageError, match="refuses to read"), take(tmp_path / "project"):
        pass


def test_another_owners_repository_is_refused_as_git_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    root = start(tmp_path / "project")
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))

    with pytest.raises(UsageError, match="detected dubious ownership") as refused, take(root / "lib"):
        pass

    assert refused.value.hint == f"git config --global --add safe.directory {root}"
    subprocess.run(shlex.split(refused.value.hint), check=True)
    with take(root / "lib") as taken:
        assert taken.changes == []


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="git is not installed"), take(tmp_path):
        pass


def test_an_old_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "bin/git", "#!/bin/sh\necho git version 2.17.1\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(UsageError, match=r"2\.17\.1 is too old"), take(tmp_path):
        pass


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root alone may become another user")
    root = start(tmp_path / "project")
    write(root / "secret file", "x", 0o000)
    write(root / "closed/x", "x")
    assert_refused(root, "secret file")
    (root / "secret file").unlink()
    (root / "closed").chmod(0o000)
    assert_refused(root, "closed")


def assert_refused(root: Path, name: str) -> None:
    for folder in (*root.parents[:-2], root):
        folder.chmod(0o755)
    for folder in (root, root / ".git"):
        os.chown(folder, 65534, 65534)  # git reads no repository of another owner
    code = PROGRAM.replace("with take", "import os\nos.setuid(65534)\nwith take")
    environment = {**os.environ, "HOME": "/", "TMPDIR": "/tmp"}
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, env=environment)
    assert f"these paths can't be read, so nothing was sent:\n  {name}" in done.stderr, done.stderr


def test_a_file_that_keeps_changing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = start(tmp_path / "project")
    write(root / "growing.log", "x\n")
    original = blobs.Blobs.store

    def grow(self: blobs.Blobs, file: bytes, known: os.stat_result) -> str:
        with open(file, "ab") as target:
            target.write(b"more\n")
        return original(self, file, known)

    monkeypatch.setattr(blobs.Blobs, "store", grow)
    with pytest.raises(UsageError, match=r"growing\.log changed while it was read"), take(root):
        pass


def test_a_checkout_meanwhile_is_not_shipped_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = start(tmp_path / "project")
    before = manifest(root)
    original = snapshot._check
    moved: list[int] = []

    def move(base: bytes, listing: Listing) -> None:
        if not moved:
            moved.append(1)
            write(root / "lib/a.py", "moved on\n")
        original(base, listing)

    monkeypatch.setattr(snapshot, "_check", move)
    with take(root) as taken:
        assert manifest(root) != before
        assert [change.path for change in taken.changes] == ["lib/a.py"]


@pytest.mark.long
def test_a_killed_snapshot_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    root = start(tmp_path / "project")
    for number in range(300):
        write(root / f"many/{number}", f"{number}\n")
    commit(root)
    for number in range(100):
        write(root / f"many/{number}", "changed\n")
        write(root / f"new/{number}", os.urandom(3000))
    git(root, "stash", "store", git(root, "stash", "create").decode().strip())
    before = {path: path.read_bytes() for path in (root / ".git").rglob("*") if path.is_file()}
    files = manifest(root)
    said = git(root, "--no-optional-locks", "status", "--porcelain", "-z")
    whole = min(Victim(root).lives() for _ in range(3))
    points = random.Random(7)

    hit = 0
    for number in range(200):
        hit += Victim(root).dies(points.uniform(0, whole), everything=number % 2 == 0)
        assert {path: path.read_bytes() for path in (root / ".git").rglob("*") if path.is_file()} == before
        if hit == 50:
            break
    assert hit == 50
    assert manifest(root) == files
    assert git(root, "--no-optional-locks", "status", "--porcelain", "-z") == said
    assert git(root, "fsck", "--no-dangling") == b""
    assert git(root, "stash", "list") != b""


class Victim:
    """A process that takes a snapshot, and reports when it starts and finishes."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-c", PROGRAM, str(root)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout
        assert self.said.readline() == b"begins\n"
        self.begun = time.monotonic()

    def lives(self) -> float:
        """Return how many seconds it takes."""
        assert self.said.readline() == b"has it\n"
        took = time.monotonic() - self.begun
        self.process.communicate()
        return took

    def dies(self, after: float, *, everything: bool) -> bool:
        """Kill it `seconds` after it started, with or without its children. Return whether it was still at work."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=after)
        if everything and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        said, _ = self.process.communicate()
        return b"has it" not in said and self.process.returncode == -signal.SIGKILL


def test_what_differs_from_the_commit_is_told_apart(tmp_path: Path) -> None:
    library = start(tmp_path / "library")
    root = start(tmp_path / "repository")
    write(root / "sub/code.py", "code\n")
    (root / "sub/link").symlink_to("code.py")
    write(root / "gone.py", "gone\n")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "vendor")
    commit(root)
    write(root / "sub/code.py", "edited\n")
    (root / "gone.py").unlink()
    write(root / "staged.py", "staged\n")
    git(root, "add", "staged.py")
    write(root / "intended.py", "intended\n")
    git(root, "add", "-N", "intended.py")
    write(root / "private/.env", "TOKEN=1\n")
    write(root / "ignored", "nothing\n")
    write(root / "vendor/new.py", "new there\n")

    with take(root / "sub") as taken:
        assert taken.changed == ("gone.py", "intended.py", "staged.py", "sub/code.py")
        assert taken.untracked == ("private/.env", "vendor/new.py")
        assert sorted(taken.new) == ["intended.py", "private/.env", "staged.py", "vendor/new.py"]
        assert taken.links == {"sub/link"}
        assert taken.root == root
    write(root / "vendor/train.py", "edited there\n")
    with take(root / "sub") as taken:
        assert taken.changed == ("gone.py", "intended.py", "staged.py", "sub/code.py", "vendor")


def test_a_clean_tree_differs_in_nothing(tmp_path: Path) -> None:
    with take(start(tmp_path / "project")) as taken:
        assert (taken.changed, taken.untracked, taken.new) == ((), (), ())


def test_without_git_everything_is_untracked(tmp_path: Path) -> None:
    write(tmp_path / "project/a.py", "a\n")

    with take(tmp_path / "project") as taken:
        assert (taken.changed, taken.untracked, taken.new) == ((), ("a.py",), ("a.py",))


def test_files_are_listed_without_reading_them(tmp_path: Path) -> None:
    root = start(tmp_path / "project")
    write(root / "lib/large", "x" * 100)
    (root / "lib/link").symlink_to("a.py")
    write(root / ".dstackignore", "old.py\n")

    where, files = snapshot.list_files(root / "lib")

    assert where == "lib"
    modes = {file.path: file.mode for file in files}
    assert modes["lib/large"] == "100644"
    assert modes["lib/link"] == "120000"
    assert not {"old.py", "ignored"} & modes.keys()
