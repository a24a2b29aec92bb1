"""Only what is damaged counts as damaged: what can't be read or checked now does not."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.errors import DstackError
from dstack.mirror import health
from dstack.mirror.health import Health
from dstack.mirror.mirror import Mirror
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.reasons import ReasonCode
from dstack.plumbing.git import Git
from dstack.snapshot.take import take
from tests.unit.snapshot.trees import start


@pytest.fixture(params=["sha1", "sha256"])
def mirror(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror with one pack."""
    monkeypatch.setenv("GIT_DEFAULT_HASH", request.param)
    made = Mirror(tmp_path / "mirror.git")
    with take(start(tmp_path / "project")) as taken:
        made.receive(taken.snapshot, taken.full_pack())
    return made


def packs(mirror: Mirror) -> list[Path]:
    return sorted((mirror.path / "objects" / "pack").glob("*.pack"))


def flip(at: int) -> Callable[[Path], None]:
    """Change one byte."""

    def flipped(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.chmod(0o600)
        path.write_bytes(content)

    return flipped


def cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"")


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
@pytest.mark.parametrize("damage", [flip(20), flip(-1), flip(-30), cut, empty, Path.unlink])
def test_a_damaged_pack_is_removed(mirror: Mirror, suffix: str, damage: Callable[[Path], None]) -> None:
    damage(packs(mirror)[0].with_suffix(suffix))

    assert Health(mirror.path).look()

    assert packs(mirror) == []
    assert not list((mirror.path / "objects" / "pack").glob("*.idx"))


def test_an_index_of_another_pack_is_damage(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "project" / "another").write_text("file")
    with take(tmp_path / "project") as taken:
        mirror.receive(taken.snapshot, taken.full_pack())
    one, other = packs(mirror)
    one.with_suffix(".idx").unlink()
    one.with_suffix(".idx").write_bytes(other.with_suffix(".idx").read_bytes())

    assert Health(mirror.path).look()

    assert packs(mirror) == [other]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES])
def test_a_pack_that_cant_be_read_now_stays(mirror: Mirror, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def failing(path: Path, *arguments: object, **options: object) -> object:
        if path.suffix == ".pack":
            raise OSError(number, "not now")
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        with pytest.raises(OSError, match="not now"):
            Health(mirror.path).look(everything=True)

    assert len(packs(mirror)) == 1
    assert not Health(mirror.path).look(everything=True)


def test_a_git_that_fails_removes_nothing(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """For instance since no process can be started."""
    monkeypatch.setattr(Git, "succeeds", lambda *arguments: False)

    assert not Health(mirror.path).look(everything=True)

    assert len(packs(mirror)) == 1


def test_large_packs_are_read_in_pieces(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "BLOCK", 7)

    assert not Health(mirror.path).look(everything=True)


def test_a_mirror_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = Mirror(tmp_path / "mirror.git")
    snapshot = Snapshot(repo="r", tree="0" * 40)

    assert not gone.has(snapshot)
    with pytest.raises(DstackError, match="the server's copy of the code is gone") as refused, gone.pack(snapshot):
        pass
    assert refused.value.code == ReasonCode.CODE_DAMAGED
    with pytest.raises(DstackError, match=r"the folder .*mirror.git is gone"):
        gone.diff(snapshot)
