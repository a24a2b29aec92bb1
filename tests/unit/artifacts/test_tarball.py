"""The tar stream for a dependent job."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.artifacts.folder.store import FolderStore
from dstack.artifacts.tarball import tar
from dstack.errors import StorageError
from dstack.model.job.manifest import Manifest, problem
from dstack.model.paths import TAR_COMPLETE
from tests.environment import needs
from tests.unit.artifacts.made import file, keep, link, manifest

part = st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"0"))
paths = st.lists(part, min_size=1, max_size=4).map(lambda parts: b"/".join(parts).decode(errors="surrogateescape"))


def tar_of(store: FolderStore, *manifests: Manifest) -> bytes:
    return b"".join(tar(store.entries(manifests)))


def opened(archive: bytes) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=io.BytesIO(archive), encoding="utf-8", errors="surrogateescape")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(paths, st.tuples(st.binary(max_size=2000), st.integers(0, 0o777)), max_size=8))
def test_what_goes_in_comes_out(made: dict[str, tuple[bytes, int]]) -> None:
    files = []
    for path, (content, mode) in made.items():
        if problem([*files, file(path, content)]) is None:
            files.append(file(path, content, mode))
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        asyncio.run(keep(store, manifest(files), {path: content for path, (content, _) in made.items()}))

        archive = opened(tar_of(store, manifest(files)))

        *members, last = archive.getmembers()
        assert last.name == TAR_COMPLETE
        assert [(m.name, m.mode, m.uid, m.gid, m.uname, m.gname) for m in members] == [
            (one.path, one.mode, 0, 0, "", "") for one in files
        ]
        for member in members:
            extracted = archive.extractfile(member)
            assert extracted is not None
            assert extracted.read() == made[member.name][0]


@pytest.mark.parametrize("program", ["tar", "busybox"])
def test_the_programs_of_hosts_read_it(tmp_path: Path, program: str) -> None:
    if not shutil.which(program):
        needs.missing(f"{program} is not installed")
    store = FolderStore(tmp_path / "store")
    names = ["plain", "-rf", "new\nline", "\udcff", "n" * 255, "deep/" * 60 + "x", "ü/名前"]
    contents = {name: name.encode(errors="surrogateescape") * 100 for name in names}
    files = [file(name, content, 0o755) for name, content in contents.items()]
    made = manifest([*files, link("latest", "deep/deep"), link("l" * 200, "t" * 200)])
    asyncio.run(keep(store, made, contents))
    target = tmp_path / "target"
    target.mkdir()

    command = ["busybox", "tar"] if program == "busybox" else [program]
    subprocess.run([*command, "-x", "-f", "-", "-C", target], input=tar_of(store, made), check=True)

    for name, content in contents.items():
        assert (target / name).read_bytes() == content
        assert (target / name).stat().st_mode & 0o777 == 0o755
    assert str((target / "latest").readlink()) == "deep/deep"
    assert str((target / ("l" * 200)).readlink()) == "t" * 200


def test_several_dependencies_in_one(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    one = manifest([file("m/a", b"1"), file("m/b", b"2")], workflow="one")
    two = manifest([file("m/a", b"1"), file("n", b"3")], workflow="two")
    asyncio.run(keep(store, one, {"m/a": b"1", "m/b": b"2"}))
    asyncio.run(keep(store, two, {"m/a": b"1", "n": b"3"}))

    assert opened(tar_of(store, one, two)).getnames() == ["m/a", "m/b", "n", TAR_COMPLETE]
    assert opened(tar_of(store)).getnames() == [TAR_COMPLETE]


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    made = manifest([file("a", b"1")])
    asyncio.run(keep(store, made, {"a": b"1"}))
    (tmp_path / "run-1/train/a").unlink()

    with pytest.raises(StorageError, match="'a' can't be read"):
        tar_of(store, made)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A sparse file of 400 MiB goes through in a process that may have 300 MiB."""
    program = """
import asyncio, hashlib, resource, sys
from pathlib import Path
from dstack.artifacts.tarball import tar
from dstack.artifacts.files import pieces
from dstack.model.paths import TAR_COMPLETE
from dstack.model.job.manifest import File
size = 400 << 20
with open(sys.argv[1], "wb") as made:
    made.truncate(size)
sum = hashlib.sha256()
for _ in range(400):
    sum.update(bytes(1 << 20))
async def run():
    total = 0
    async for piece in pieces(tar([(File("a", size, 0o644, sum.hexdigest()), Path(sys.argv[1]))])):
        total += len(piece)
    return total
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
print(asyncio.run(run()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "sparse"], capture_output=True, text=True, check=False
    )
    assert int(done.stdout or 0) > 400 << 20, done.stderr
    (tmp_path / "sparse").unlink()
