"""What a host reads while a job replaces its files: only ever what the job wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dstack.commands.job.observe import follow, observe, read_log
from tests.unit.commands.hosts import Folder, busybox

SECRET = "77"
"""What the host's user has elsewhere: the worst case, because it could be an exit code."""
ROUNDS = 12


@pytest.fixture(params=["dash", "busybox"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    docker = tmp_path / "docker"  # it knows no container
    docker.write_text('#!/bin/sh\n[ "$1" != inspect ]\n')
    docker.chmod(0o755)
    if request.param == "busybox":
        path = busybox(tmp_path / "bin")
        return Folder(tmp_path / "root", (str(Path(path) / "sh"),), path, docker=str(docker))
    return Folder(tmp_path / "root", docker=str(docker))


@pytest.fixture
def io(host: Folder) -> Path:
    """A running job's folder, as a launch leaves it."""
    folder = host.job("j").parent / "io"
    folder.mkdir()
    (folder / "started").touch()
    (folder / "log").write_text("mine\n")
    os.link(folder / "log", folder.parent / "log")
    return folder


def as_link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def as_fifo(path: Path, secret: Path) -> None:
    os.mkfifo(path)


def as_folder(path: Path, secret: Path) -> None:
    path.mkdir()
    (path / "file").write_text(SECRET)


def as_file(path: Path, secret: Path) -> None:
    path.write_text("5\n" if path.name == "exit" else "mine\n")


SHAPES: tuple[Callable[[Path, Path], None], ...] = (as_link, as_file, as_fifo, as_link, as_folder)


def put(path: Path, shape: Callable[[Path, Path], None], secret: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    shape(path, secret)


@contextmanager
def swapping(path: Path, secret: Path) -> Iterator[None]:
    """Replace the path all the time by a link to the secret, by a file, a FIFO and a folder."""
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for number, shape in enumerate(SHAPES):
                aside = path.with_name(f"{path.name}.{number}")
                put(aside, shape, secret)
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                try:
                    aside.rename(path)
                except (FileExistsError, IsADirectoryError, NotADirectoryError):
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("older", [False, True], ids=["new", "launched-by-an-older-dstack"])
def test_a_log_that_is_swapped_all_the_time(host: Folder, io: Path, tmp_path: Path, older: bool) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    if older:
        (io.parent / "log").unlink()

    with swapping(io / "log", secret):
        for _ in range(ROUNDS):
            if older:  # so that each round takes hold of it anew
                (io.parent / "log").unlink(missing_ok=True)
            read = host.ask(read_log(host.context, "j", 0))
            assert read in ((b"", b"mine\n") if older else (b"mine\n",))
            assert host.ask(observe(host.context, "j")).log_size in ((0, 5) if older else (5,))


@pytest.mark.parametrize("shape", SHAPES[:1] + SHAPES[2:])
def test_a_log_that_was_swapped_once(
    host: Folder, io: Path, tmp_path: Path, shape: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    put(io / "log", shape, secret)

    assert host.ask(read_log(host.context, "j", 0)) == b"mine\n"
    assert host.ask(follow(host.context, "j", 0)) in (b"", b"mine\n")  # without a container, it may end at once
    (io.parent / "log").unlink()
    assert host.ask(read_log(host.context, "j", 0)) == b""
    assert host.ask(observe(host.context, "j")).log_size == 0


def test_an_exit_file_that_is_swapped_all_the_time(host: Folder, io: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")

    with swapping(io / "exit", secret):
        for _ in range(ROUNDS):
            assert host.ask(observe(host.context, "j")).exit_code in (None, 5)
            (io.parent / "exit").unlink(missing_ok=True)


def test_an_exit_code_is_read_again_as_it_was(host: Folder, io: Path) -> None:
    (io / "exit").write_text("3\n")
    assert host.ask(observe(host.context, "j")).exit_code == 3

    (io / "exit").write_text("0\n")
    assert host.ask(observe(host.context, "j")).exit_code == 3


def test_an_exit_code_that_is_still_being_written(host: Folder, io: Path) -> None:
    with (io / "exit").open("w") as file:
        file.write("1")
        file.flush()
        assert host.ask(observe(host.context, "j")).exit_code is None
        file.write("7\n")
        file.flush()
        assert host.ask(observe(host.context, "j")).exit_code == 17


def test_a_device_is_not_opened(host: Folder, io: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    (io / "log").unlink()
    (io.parent / "log").unlink()
    subprocess.run(["mknod", str(io / "log"), "c", "1", "5"], check=True)

    assert host.ask(read_log(host.context, "j", 0)) == b""
