"""The artifact store in a folder."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from dstack.artifacts.folder import contents as contents_module
from dstack.artifacts.folder.store import FolderStore
from dstack.artifacts.tarball import tar
from dstack.errors import NotFoundError, StorageError
from dstack.model.job.manifest import File, Manifest
from tests.unit.artifacts.made import file, keep, link, manifest, on_disk, stream

T = TypeVar("T")

CONTENTS = {"out/a": b"one", "out/deep/b": b"one", "c": b"", "d": b"two" * 1000}
FILES = (
    file("out/a", b"one"),
    file("out/deep/b", b"one", 0o755),
    file("c", b"", 0o600),
    file("d", CONTENTS["d"]),
    link("out/latest", "deep"),
)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "artifacts")


def kept(store: FolderStore, made: Manifest, contents: dict[str, bytes] | None = None) -> list[File]:
    return asyncio.run(keep(store, made, CONTENTS if contents is None else contents))


async def collected(source: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in source])


def test_a_tree_with_modes_links_and_its_manifest(store: FolderStore) -> None:
    made = manifest(FILES)

    sent = kept(store, made)

    assert [one.path for one in sent] == ["out/a", "c", "d"]
    tree = on_disk(store.root / "run-1" / "train")
    assert tree.pop("manifest.json")[0] == 0o644 & ~umask()
    assert tree == {
        "c": (0o600, b""),
        "d": (0o644, CONTENTS["d"]),
        "out/a": (0o644, b"one"),
        "out/deep/b": (0o755, b"one"),
        "out/latest": (0, "deep"),
    }
    assert store.manifest("run-1", "train") == made
    assert store.verify(made) is None
    assert not list((store.root / ".incoming").iterdir())


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_equal_content_is_stored_once(store: FolderStore) -> None:
    kept(store, manifest(FILES))

    again = manifest(FILES, run="run-2", job="j2")
    assert kept(store, again, {}) == []

    one, two = (store.root / run / "train" / "d" for run in ("run-1", "run-2"))
    assert one.samefile(two)
    assert not (store.root / "run-1/train/out/a").samefile(store.root / "run-1/train/out/deep/b")
    assert (store.root / "run-1/train/out/deep/b").samefile(store.root / "run-2/train/out/deep/b")


@pytest.mark.parametrize("error", [errno.EMLINK, errno.EPERM, errno.EXDEV])
def test_where_links_cannot_be_made_it_copies(store: FolderStore, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, "no links here")

    monkeypatch.setattr(contents_module.os, "link", refuse)
    kept(store, manifest(FILES))
    assert kept(store, manifest(FILES, run="run-2"), {}) == []

    for run in ("run-1", "run-2"):
        assert on_disk(store.root / run / "train")["out/deep/b"] == (0o755, b"one")
        assert store.verify(manifest(FILES, run=run)) is None


def test_without_a_manifest_there_is_nothing(store: FolderStore) -> None:
    assert store.manifest("run-1", "train") is None
    kept(store, manifest(FILES))
    document = store.root / "run-1" / "train" / "manifest.json"
    whole = document.read_bytes()

    for damaged in (whole[:-10], b"", b"[]", b'{"job": 1}', whole.replace(b"out/a", b"../ab"), b"\xff\xfe"):
        document.write_bytes(damaged)
        assert store.manifest("run-1", "train") is None
    (store.root / "run-2").mkdir()
    (store.root / "run-1" / "train").rename(store.root / "run-2" / "train")
    (store.root / "run-2/train/manifest.json").write_bytes(whole)
    assert store.manifest("run-2", "train") is None


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def grow(path: Path) -> None:
    with path.open("ab") as opened:
        opened.write(b"more")


def change(path: Path) -> None:
    path.write_bytes(b"TWO" * 1000)


def become_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("out/a")


DAMAGES = {
    delete: "'d' is gone",
    truncate: "'d' has 10 bytes instead of 3000",
    grow: "'d' has 3004 bytes instead of 3000",
    change: "'d' no longer matches its checksum",
    become_a_link: "'d' is no longer a regular file",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_noticed_and_never_used_again(store: FolderStore, damage: Callable[[Path], None]) -> None:
    made = manifest(FILES)
    kept(store, made)

    damage(store.root / "run-1/train/d")

    assert store.verify(made) == DAMAGES[damage]
    if damage is not grow:  # its first bytes are the right ones
        with pytest.raises(StorageError):
            b"".join(tar(store.entries([made])))
    again = manifest(FILES, run="run-2", job="j2")
    sent = kept(store, again)
    assert [one.path for one in sent] == ([] if damage in (delete, become_a_link) else ["d"])
    assert on_disk(store.root / "run-2/train")["d"] == (0o644, CONTENTS["d"])
    assert store.verify(again) is None


def test_damage_that_kept_size_and_time_is_noticed_when_it_is_read(store: FolderStore) -> None:
    made = manifest(FILES)
    kept(store, made)
    stored = store.root / "run-1/train/d"
    times = stored.stat()
    stored.write_bytes(b"TWO" * 1000)
    os.utime(stored, ns=(times.st_atime_ns, times.st_mtime_ns))

    with pytest.raises(StorageError, match="'d' is damaged"):
        b"".join(tar(store.entries([made])))

    assert store.verify(made) == "'d' no longer matches its checksum"
    assert [one.path for one in asyncio.run(store.missing(FILES))] == ["d"]


def test_a_file_that_was_only_touched_is_fine(store: FolderStore) -> None:
    made = manifest(FILES)
    kept(store, made)
    (store.root / "run-1/train/d").touch()

    assert store.verify(made) is None
    assert asyncio.run(store.missing(FILES)) == []


def test_a_link_that_changed(store: FolderStore) -> None:
    made = manifest(FILES)
    kept(store, made)
    (store.root / "run-1/train/out/latest").unlink()

    assert store.verify(made) == "the link 'out/latest' is gone or changed"


@pytest.mark.parametrize(
    "bad",
    [
        file("/etc/passwd", b"one"),
        file("../x", b"one"),
        file("a/../../x", b"one"),
        file("a//b", b"one"),
        file("", b"one"),
        file(".", b"one"),
        file("a\0b", b"one"),
        file("manifest.json", b"one"),
        file("manifest.json/x", b"one"),
        file("\ud800", b"one"),
        file("x/" * 2000 + "x", b"one"),
        file("good/below", b"one"),
        file("good", b"one"),
        file("link/below", b"one"),
        link("out", "/etc"),
        link("out/x", "../../etc"),
        link("via", "link/../../.."),
        File("short-sum", 3, 0o644, "../../x"),
    ],
    ids=lambda one: repr(one.path)[:20],
)
def test_paths_that_leave_the_tree_are_refused(store: FolderStore, bad: File) -> None:
    files = (file("good", b"one"), link("link", "some/where"), bad)
    asyncio.run(store.receive("run-1", "train", stream(b"one"), files[:1]))

    with pytest.raises(StorageError):
        asyncio.run(store.commit(manifest(files)))

    assert on_disk(store.root) == {}
    assert [path.name for path in store.root.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["", ".", "..", ".content", "a/b", "/etc", "a\0b"])
def test_names_that_are_no_folder_of_the_store(store: FolderStore, name: str) -> None:
    for run, workflow in ((name, "train"), ("run-1", name)):
        with pytest.raises(StorageError, match="is not a valid name"):
            asyncio.run(store.commit(manifest([], run=run, workflow=workflow)))


def test_content_that_never_came(store: FolderStore) -> None:
    with pytest.raises(StorageError, match="'out/a' is not in the store"):
        asyncio.run(store.commit(manifest(FILES)))
    assert on_disk(store.root) == {}


def test_a_commit_replaces_what_an_earlier_attempt_left(store: FolderStore) -> None:
    kept(store, manifest(FILES))
    made = manifest([file("out", b"now a file"), link("c", "out")], job="j1-2")

    kept(store, made, {"out": b"now a file"})

    assert sorted(on_disk(store.root / "run-1/train")) == ["c", "manifest.json", "out"]
    assert store.manifest("run-1", "train") == made


def test_workflows_of_a_run_do_not_disturb_each_other(store: FolderStore) -> None:
    kept(store, manifest([file("out/a", b"one")], workflow="train"), {"out/a": b"one"})
    kept(store, manifest([file("out/a", b"two")], workflow="encode"), {"out/a": b"two"})

    asyncio.run(store.remove("run-1", "train"))

    assert store.manifest("run-1", "train") is None
    assert on_disk(store.root / "run-1")["encode/out/a"][1] == b"two"


def test_removing_leaves_nothing(store: FolderStore) -> None:
    kept(store, manifest(FILES))
    kept(store, manifest(FILES, run="run-2"))

    asyncio.run(store.remove("run-1", "train"))
    assert store.verify(manifest(FILES, run="run-2")) is None
    assert asyncio.run(store.missing(FILES)) == []

    asyncio.run(store.remove("run-2", "train"))
    asyncio.run(store.remove("run-2", "train"))
    assert not [path for path in store.root.rglob("*") if not path.is_dir()]
    assert [path.name for path in store.root.iterdir() if not path.name.startswith(".")] == []


def test_reading_from_an_offset(store: FolderStore) -> None:
    kept(store, manifest(FILES))

    assert asyncio.run(collected(store.open("run-1", "train", "d"))) == CONTENTS["d"]
    assert asyncio.run(collected(store.open("run-1", "train", "d", 2998))) == b"wo"
    assert asyncio.run(collected(store.open("run-1", "train", "d", 3000))) == b""
    assert asyncio.run(collected(store.open("run-1", "train", "c"))) == b""


@pytest.mark.parametrize("path", ["nope", "out", "out/latest", "out/latest/b", "../train/d", "/etc/passwd", "", "d/x"])
def test_what_is_no_file_is_not_opened(store: FolderStore, path: str) -> None:
    kept(store, manifest(FILES))

    with pytest.raises(NotFoundError):
        store.open("run-1", "train", path)


def test_odd_names(store: FolderStore) -> None:
    names = ["sp ace", "-rf", "new\nline", "\udcff\udcfe", "ü", '"\\', "x" * 255, "d/" * 100 + "x"]
    contents = {name: str(number).encode() for number, name in enumerate(names)}
    made = manifest([file(name, content) for name, content in contents.items()])

    kept(store, made, contents)

    assert store.manifest("run-1", "train") == made
    assert store.verify(made) is None
    for name, content in contents.items():
        assert asyncio.run(collected(store.open("run-1", "train", name))) == content


def test_a_full_disk_is_a_storage_error(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/x")

    monkeypatch.setattr("dstack.artifacts.folder.store.sync_all", full)
    with pytest.raises(StorageError, match="No space left"):
        kept(store, manifest(FILES))
    assert on_disk(store.root) == {}


def test_the_loop_stays_live(store: FolderStore) -> None:
    """While 2,000 files are stored, the event loop is never blocked for more than a quarter of a second."""
    contents = {f"out/{number}": str(number).encode() for number in range(2000)}
    made = manifest([file(path, content) for path, content in contents.items()])

    async def longest_pause() -> float:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(keep(store, made, contents))
        longest, last = 0.0, loop.time()
        while not task.done():
            await asyncio.sleep(0.001)
            now = loop.time()
            longest, last = max(longest, now - last), now
        await task
        return longest

    assert asyncio.run(longest_pause()) < 0.25
    assert store.verify(made) is None


def test_contents_that_no_job_has_go_unless_they_came_lately(store: FolderStore, tmp_path: Path) -> None:
    kept(store, manifest(FILES))
    orphan = file("lost", b"nobody's")
    asyncio.run(store.receive("run-2", "train", stream(b"nobody's"), [orphan]))
    came = next((tmp_path / "artifacts/.content").rglob(f"{orphan.sha256}-*")).stat().st_ctime

    assert asyncio.run(store.unused(came)) == 0
    assert asyncio.run(store.unused(came + 1, dry_run=True)) == len(b"nobody's")
    assert asyncio.run(store.missing([orphan])) == []
    assert asyncio.run(store.unused(came + 1)) == len(b"nobody's")
    assert asyncio.run(store.missing([*FILES, orphan])) == [orphan]
    assert asyncio.run(store.unused(came + 1)) == 0
