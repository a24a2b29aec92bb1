"""Checksums that a host computes, and what an upload plan tells the host."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.commands.artifacts.upload import sums
from dstack.errors import CommandError
from dstack.model.job.manifest import File
from dstack.model.job.pieces import PART, Sums, spans
from tests.unit.commands.hosts import Folder, busybox


@pytest.fixture(params=["sh", "bash", "busybox"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "busybox":
        programs = busybox(tmp_path / "programs")
        yield Folder(tmp_path / "root", (f"{programs}/sh",), programs)
    else:
        yield Folder(tmp_path / "root", (request.param,))


def put(tree: Path, path: str, content: bytes) -> tuple[File, Sums]:
    """Put a file into the tree; return it as listed, with its checksums."""
    target = tree / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    parts = tuple(hashlib.md5(content[at : at + size]).hexdigest() for at, size in spans(len(content)))
    return File(path, len(content), 0o644, digest), Sums(parts)


def test_the_sums_of_files_and_of_parts(host: Folder) -> None:
    tree = host.job("j1") / "sub"
    names = ["a b", "it's\nnew", "-rf", "d/ü\\", "empty"]
    made = [put(tree, name, name.encode() * (name != "empty")) for name in names]
    made += [put(tree, "large '1'", os.urandom(PART) + b"tail"), put(tree, "large\n2", b"\0" * (PART + 1))]

    found = host.ask(sums(host.context, "j1", "workflow/sub", [file for file, _ in made]))

    assert found == {file.path: right for file, right in made}
    assert [path.name for path in tree.parent.parent.iterdir()] == ["workflow"]
    shutil.rmtree(tree)


def test_a_file_that_changed_since_it_was_listed(host: Folder) -> None:
    tree = host.job("j1")
    file, _ = put(tree, "large", b"\0" * (PART + 1))
    with (tree / "large").open("r+b") as changed:
        changed.write(b"x")

    with pytest.raises(CommandError, match="'large' changed since it was listed"):
        host.ask(sums(host.context, "j1", "workflow", [file]))


def test_a_file_that_is_gone(host: Folder) -> None:
    file, _ = put(host.job("j1"), "a", b"x")
    (host.job("j2")).rmdir()
    (host.base / "jobs" / "j1" / "workflow" / "a").unlink()

    with pytest.raises(CommandError):
        host.ask(sums(host.context, "j1", "workflow", [file]))
