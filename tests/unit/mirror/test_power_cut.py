"""A mirror after a power cut, and what it writes to disk so that a run's code survives one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.errors import MissingBaseError
from dstack.mirror.mirror import Mirror
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import git
from tests.unit.snapshot.trees import start
from tests.unit.syncs import Syncs

PACK = {".pack", ".idx", ".rev"}


@pytest.mark.parametrize("lost", ["HEAD", "config", "shallow", "known-packs", "refs/**/*", "cuts/*", "info/attributes"])
def test_a_file_whose_bytes_never_reached_the_disk_is_written_again(tmp_path: Path, lost: str) -> None:
    mirror = Mirror(tmp_path / "mirror.git")
    with take(start(tmp_path / "project")) as taken:
        mirror.receive(taken.snapshot, taken.full_pack())
        emptied = [path for path in mirror.path.glob(lost) if path.is_file()]
        assert emptied
        for path in emptied:
            path.write_bytes(b"")

        mirror.receive(taken.snapshot, taken.full_pack())

        assert mirror.has(taken.snapshot)
        assert git(mirror.path, "fsck", "--strict") == b""
        mirror.collect([taken.snapshot])
        assert mirror.has(taken.snapshot)


def test_new_code_is_on_disk_and_known_code_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = start(tmp_path / "project")
    mirror = Mirror(tmp_path / "mirror.git")
    syncs = Syncs(monkeypatch)
    with take(project) as taken:
        with pytest.raises(MissingBaseError):
            mirror.receive(taken.snapshot, taken.pack())
        mirror.receive(taken.snapshot, taken.full_pack())
    everything = {path.name for path in mirror.path.rglob("*")} | {"mirror.git", tmp_path.name}
    assert everything - set(syncs) == {"known-packs"}, "which can be made again"

    syncs.clear()
    with take(project) as taken:
        mirror.receive(taken.snapshot, taken.pack(mirror.newest()))
    before = {path: path.stat().st_ino for path in mirror.path.rglob("*")}
    assert not {path.name for path in mirror.path.rglob("*") if path.is_file() and path.suffix not in PACK} & set(syncs)

    syncs.clear()
    (project / "train.py").write_text("changed\n")
    with take(project) as taken:
        mirror.receive(taken.snapshot, taken.pack())
    new = {path for path in mirror.path.rglob("*") if before.get(path) != path.stat().st_ino}
    assert {path.name for path in new if path.name != "known-packs"} | {"pack", "trees"} <= set(syncs)
    assert len(syncs) == len(set(syncs))
