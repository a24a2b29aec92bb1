"""No program that a repository's configuration names runs when its snapshot is taken. Each case first shows that git
itself would start it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dstack.errors import DstackError
from dstack.plumbing.git import GitError
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import Road, git
from tests.unit.snapshot.trees import commit, partial, start, write

Place = Callable[[Path, str, str], None]


def in_config(root: Path, key: str, value: str) -> None:
    git(root, "config", key, value)


def in_an_include(root: Path, key: str, value: str) -> None:
    git(root, "config", "--file", ".git/more", key, value)
    git(root, "config", "include.path", "more")


def of_the_worktree(root: Path, key: str, value: str) -> None:
    git(root, "config", "extensions.worktreeConfig", "true")
    git(root, "config", "--worktree", key, value)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that leaves a file `mark` beside itself."""
    path = tmp_path / "program"
    write(path, f"#!/bin/sh\n: > {tmp_path}/mark\n", 0o755)
    return path


def marked(program: Path) -> bool:
    """Whether the program ran since this was asked."""
    mark = program.with_name("mark")
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


def work(root: Path) -> Path:
    """A repository whose attributes name a filter and a diff, with files that git must read to know their state."""
    start(root)
    write(root / ".gitattributes", "*.py filter=x diff=x\n")
    commit(root)
    os.utime(root / "train.py", (1, 1))
    write(root / "lib/a.py", "edited\n")
    return root


def hooks(folder: Path, program: Path) -> Path:
    for name in ("post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-auto-gc"):
        write(folder / name, program.read_bytes(), 0o755)
    return folder


@pytest.mark.parametrize(
    ("key", "asks", "place"),
    [
        ("filter.x.clean", "status", in_config),
        ("filter.x.clean", "status", in_an_include),
        ("filter.x.clean", "status", of_the_worktree),
        ("filter.x.process", "status", in_config),
        ("core.fsmonitor", "status", in_config),
        ("core.hooksPath", "status", in_config),
        ("diff.external", "diff", in_config),
        ("diff.x.command", "diff", in_config),
        ("diff.x.textconv", "diff", in_config),
    ],
)
def test_no_program_looks_at_the_files(key: str, asks: str, place: Place, tmp_path: Path, program: Path) -> None:
    root = work(tmp_path / "project")
    value = hooks(tmp_path / "hooks", program) if key == "core.hooksPath" else program
    place(root, key, str(value))
    git(root, asks, ok=False)
    assert marked(program)
    os.utime(root / "train.py", (2, 2))

    with take(root) as taken:
        taken.full_pack()

    assert not marked(program)


def test_no_program_of_a_submodule_runs(tmp_path: Path, program: Path) -> None:
    library, root = work(tmp_path / "library"), work(tmp_path / "project")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
    commit(root)
    git(root / "sub", "config", "filter.x.clean", str(program))
    os.utime(root / "sub/train.py", (1, 1))
    git(root, "status")
    assert marked(program)
    os.utime(root / "sub/train.py", (2, 2))

    with take(root) as taken:
        taken.full_pack()

    assert not marked(program)


@pytest.fixture
def login() -> Iterator[str]:
    """The URL of a web server that wants a name and a password."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("key", "url", "place"),
    [
        ("core.sshCommand", "ssh://dstack.invalid/x", in_config),
        ("core.sshCommand", "ssh://dstack.invalid/x", in_an_include),
        ("core.sshCommand", "ssh://dstack.invalid/x", of_the_worktree),
        ("core.gitProxy", "git://dstack.invalid/x", in_config),
        ("core.askPass", "LOGIN", in_config),
        ("credential.helper", "LOGIN", in_config),
        ("credential.LOGIN.helper", "LOGIN", in_config),
        ("remote.origin.uploadpack", "", in_config),
        ("remote.origin.url", "ext::PROGRAM", in_config),
        ("remote.origin.vcs", "PROGRAM", in_config),
        ("core.alternateRefsCommand", "", in_config),
    ],
)
def test_no_program_fetches(key: str, url: str, place: Place, tmp_path: Path, program: Path, login: str) -> None:
    """In a partial clone, git fetches what it lacks by itself."""
    root = partial(tmp_path / "project", "blob:none")
    url = url.replace("LOGIN", login).replace("PROGRAM", str(program))
    if url:
        git(root, "config", "remote.origin.url", url)
    git(root, "config", "protocol.ext.allow", "always")
    value = {"remote.origin.url": url, "remote.origin.vcs": "ext"}.get(key, str(program))
    place(root, key.replace("LOGIN", login), value)
    elsewhere = start(tmp_path / "elsewhere")
    commit(tmp_path / "origin", "something to fetch")
    git(root, "fetch", ok=False, GIT_ALTERNATE_OBJECT_DIRECTORIES=str(elsewhere / ".git/objects"))
    assert marked(program)

    with suppress(DstackError), take(root) as taken:
        taken.full_pack()

    assert not marked(program)


def test_the_users_own_programs_still_fetch(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = partial(tmp_path / "project", "blob:none")
    git(root, "config", "remote.origin.url", "ssh://dstack.invalid/x")
    git(root, "config", "core.sshCommand", "false")
    write(tmp_path / "gitconfig", f"[core]\n\tsshCommand = {program}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))

    with suppress(GitError, DstackError), take(root) as taken:
        taken.full_pack()

    assert marked(program)


def test_a_name_that_cannot_be_switched_off_is_refused(tmp_path: Path, program: Path) -> None:
    root = work(tmp_path / "project")
    git(root, "config", "filter.x=y.clean", str(program))
    write(root / ".gitattributes", "*.py filter=x=y\n")

    with pytest.raises(DstackError, match="has '=' in a section's name"), take(root):
        pass

    assert not marked(program)


def test_files_of_lfs_are_known_without_lfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = start(tmp_path / "project")
    git(root, "lfs", "install", "--local")
    git(root, "lfs", "track", "*.big")
    write(root / "same.big", b"same" * 20_000)
    write(root / "edited.big", b"old!" * 20_000)
    commit(root)
    write(root / "edited.big", b"new!" * 20_000)
    os.utime(root / "same.big", (1, 1))
    road = Road(tmp_path / "road")

    tree = road.launch(road.submit(root))

    assert (tree / "same.big").read_bytes() == b"same" * 20_000
    assert road.in_job(tree, "status", "--porcelain") == b" M edited.big\n"
