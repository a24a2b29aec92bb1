"""Files with odd names and of every kind, from a container to the storage, to a dependent job and to the user."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.project import project
from tests.environment.product import Home
from tests.environment.s3 import BUCKET, S3

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

NAMES = [
    *("a b", " ", "it's", '"quoted"', "new\nline", "\n", "tab\tand\\slash", "-rf", "--", "-", "$(id)", "`id`", "$HOME"),
    *("ünïcödé 名前", "e\u0301", "[a]{b,c}*?", "%41%0A", "a+b&c=d#e;f", "..hidden", "...", "~", "x" * 255, "ü" * 127),
    *("con:", "trailing ", ".gitignore", "\x1b[31m", "#", "=", "@file", "bad\udcff\udcfename"),
]
CHAIN = """
workflows:
  - name: make
    image: {image}
    commands: [sh make.sh]
    artifacts: [out]
  - name: copy
    image: {image}
    commands: [cp -a out copied]
    artifacts: [copied]
    depends-on: {{workflows: [make]}}
  - name: hostile
    image: {image}
    commands: [sh hostile.sh]
    artifacts: [out, gone, bad, {{path: maybe, optional: true}}]
"""
HOSTILE = """
mkdir -p out/deep out/to bad; echo kept > out/deep/kept
ln -s /etc/passwd out/absolute; ln -s ../../../x out/up; ln -s deep/../../../.. out/zigzag; ln -s /etc out/to/folder
mkfifo out/pipe; mknod out/null c 1 3
rmdir bad; ln -s /etc bad
"""


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, cli: Cli, dstack_home: Home, s3: S3, runner: str) -> None:
    if request.param == "s3":
        assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    made = project(tmp_path / "p", CHAIN.format(image=busybox))
    lines = ["mkdir -p out/d; chmod 700 out/d"]
    for number, name in enumerate(NAMES):
        for path in (f"out/{name}", f"out/d{number}/{name}"):
            lines += [f"mkdir -p out/d{number}", f"printf %s {number} > {shlex.quote(path)}"]
    lines += [
        f"mkdir -p {shlex.quote(f'out/{name}.d')}; echo in > {shlex.quote(f'out/{name}.d/f')}" for name in NAMES[:20]
    ]
    lines += ["echo m > out/m4755; chmod 4755 out/m4755; echo m > out/m400; chmod 400 out/m400; : > out/empty"]
    lines += ["ln -s m400 out/link; ln -s d0 out/folder; ln -s nowhere out/dangling; ln -s ../m400 out/d0/up"]
    lines += ["ln -s 'it'\\''s' \"out/link to it's\""]
    (made / "make.sh").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    (made / "hostile.sh").write_text(HOSTILE)
    return made


def found(top: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file and link in the folder: mode and content, or target."""
    paths = [path for path in top.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {
        str(path.relative_to(top)): (0, os.fsencode(os.readlink(path)))
        if path.is_symlink()
        else (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in paths
    }


def test_names_modes_and_links_survive(cli: Cli, storage: None, folder: Path, tmp_path: Path) -> None:
    done = cli("run", "copy", "--name", "one", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert cli("artifacts", "download", "one", "-o", tmp_path / "d").returncode == 0

    made = found(tmp_path / "d/make/out")
    for number, name in enumerate(NAMES):
        assert made[name] == made[f"d{number}/{name}"] == (0o644, str(number).encode())
    assert made["m4755"] == (0o755, b"m\n")
    assert made["m400"] == (0o400, b"m\n")
    assert made["empty"] == (0o644, b"")
    links = {"link": b"m400", "folder": b"d0", "dangling": b"nowhere", "d0/up": b"../m400", "link to it's": b"it's"}
    assert {name: made[name] for name in links} == {name: (0, target) for name, target in links.items()}
    assert len(made) == 2 * len(NAMES) + 20 + 3 + len(links)
    assert found(tmp_path / "d/copy/copied") == made

    listed = {view["path"] for view in json.loads(cli("artifacts", "list", "one", "--json").stdout)}
    assert listed == {f"out/{name}" for name in made} | {f"copied/{name}" for name in made}
    assert len(cli("artifacts", "list", "one").stdout.splitlines()) == len(listed)
    for name in ("-rf", "new\nline", "x" * 255):
        got = cli("artifacts", "download", "-o", tmp_path / "e", "one", "--", f"out/{name}")
        assert got.returncode == 0, got.stderr
        assert (tmp_path / "e/make/out" / name).read_bytes() == made[name][1]


def test_what_leaves_the_tree_is_refused_with_its_name(cli: Cli, storage: None, folder: Path) -> None:
    done = cli("run", "hostile", "--name", "one", cwd=folder)

    assert done.returncode == 1
    reason = json.loads(cli("runs", "one", "--json").stdout)["reason"]
    assert "artifact 'gone' was not produced" in reason
    for name in ("out/absolute", "out/up", "out/zigzag", "out/to/folder", "out/pipe", "out/null", "bad"):
        assert f"'{name}'" in reason
    assert "maybe" not in reason
    listed = json.loads(cli("artifacts", "list", "one", "--json").stdout)
    assert [view["path"] for view in listed] == ["out/deep/kept"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "out/../../x", "a/.."])
def test_a_declared_path_that_leaves_is_refused(cli: Cli, folder: Path, path: str) -> None:
    workflows = folder / ".dstack/workflows.yaml"
    workflows.write_text(workflows.read_text().replace("[copied]", f"['{path}']"))

    done = cli("validate", cwd=folder)

    assert done.returncode == 2
    assert f"'{path}'" in done.stderr
