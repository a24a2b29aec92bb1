"""A script that fails on a full disk says so, whatever its programs say."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dstack.commands.job.stop import stop
from tests.environment import needs
from tests.unit.commands.hosts import Folder

WORDS = "no space left on device"
SHELLS = (("dash",), ("bash", "--posix"), ("busybox", "sh"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB with room for 100 files."""
    needs.root("a disk of the test's own")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=100", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(1 << 12)):
            pass


def use_inodes(disk: Path) -> None:
    with suppress(OSError):
        for number in range(200):
            (disk / str(number)).touch()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("full", [fill, use_inodes])
def test_a_script_that_fails_on_a_full_disk(disk: Path, shell: tuple[str, ...], full: Callable[[Path], None]) -> None:
    host = failing(disk, shell)
    full(disk)

    done = host.result(stop(host.context, "abc", 0))

    assert done.exit_status == 1
    assert done.stderr.decode().endswith(f"File exists\n{WORDS}\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_one_that_fails_for_another_reason(disk: Path, shell: tuple[str, ...]) -> None:
    host = failing(disk, shell)

    done = host.result(stop(host.context, "abc", 0))

    assert done.exit_status == 1
    assert WORDS not in done.stderr.decode()
    assert not list(host.base.glob("room.*"))


def failing(disk: Path, shell: tuple[str, ...]) -> Folder:
    """A host on which a stop fails: a file is where a folder should be."""
    host = Folder(disk, shell=shell)
    (host.job("abc").parent / "io").touch()
    return host
