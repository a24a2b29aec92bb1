"""Artifacts are kept on the runner that made them, for jobs that depend on them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import project, single
from tests.environment.account import Account
from tests.environment.product import Home
from tests.environment.s3 import BUCKET, S3
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

WORKFLOWS = """
workflows:
  - name: data
    image: {image}
    commands:
      - mkdir -p out/deep && echo one > out/a && ln -s a out/latest && echo two > 'out/deep/-b c' && chmod 755 out/a
      - ln -s out/nowhere out/broken && chmod 0 out/deep && echo alone > single && mkdir left && echo x > left/over
    artifacts: [out, single]
    depends-on: {{repo: {{include: [.gitignore]}}}}
  - name: model
    image: {image}
    commands: [mkdir m, echo m > m/m]
    artifacts: [m]
    depends-on: {{repo: {{include: [.gitignore]}}}}
  - name: use
    image: {image}
    commands:
      - cat out/a out/latest out/deep/* single m/m && ls -l out/a | cut -c 1-10 && echo changed >> out/a
      - rm out/deep/* && chmod 600 single
    depends-on: {{workflows: [data, model]}}
"""
SEEN = "one\none\ntwo\nalone\nm\n-rwxr-xr-x\n"


FACTS = "TZ=UTC0 find . -type f -exec stat -c '%s %y %z %n' {} + | sort > ../facts"
"""As the machine notes what tells whether a file was touched since it was hashed."""


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    return project(tmp_path / "p", WORKFLOWS.format(image=busybox))


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, cli: Cli, s3: S3, runner: str, dstack_home: Home) -> Path:
    """Return the folder with the stored artifacts."""
    if request.param == "folder":
        return dstack_home.dstack / "server" / "artifacts"
    assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
    return s3.folder / "objects" / BUCKET / "x"


def use(cli: Cli, folder: Path, seen: str) -> dict[str, Any]:
    """Run the workflow that depends on the others, which come from the cache from the second time on."""
    done = cli("run", "use", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    run: dict[str, Any] = json.loads(cli("runs", "--json", "-n", "1").stdout)[0]
    job = next(job["id"] for job in run["jobs"] if job["workflow"] == "use")
    assert cli("logs", job).stdout == seen
    return run


def folders(user: Account, kind: str) -> list[Path]:
    return sorted(user.home.glob(f".dstack-host/*/*/{kind}/*"))


def test_dependents_on_the_machine_copy_them_there(cli: Cli, storage: Path, user: Account, folder: Path) -> None:
    first = use(cli, folder, SEEN)
    until(lambda: not folders(user, "jobs"), "the jobs' folders are gone")
    kept = folders(user, "kept")
    assert {path.name for path in kept} == {job["id"] for job in first["jobs"] if job["workflow"] != "use"}
    assert not [path for top in kept for path in top.rglob("over")]

    (out,) = (path for path in kept if (path / "tree/out").exists())
    (out / "tree/single").write_text("ALONE\n")
    subprocess.run(["sh", "-c", FACTS], cwd=out / "tree", check=True)
    use(cli, folder, SEEN.replace("alone", "ALONE"))
    assert (out / "tree/out/a").read_text() == "one\n", "what a job does to its copy changes nothing"

    (out / "tree/out/a").write_text("bad\n")
    use(cli, folder, SEEN)
    until(lambda: not folders(user, "jobs"), "the jobs' folders are gone")

    deleted = [run["name"] for run in json.loads(cli("runs", "--json").stdout)]
    assert cli("runs", "delete", *deleted, "-y").returncode == 0
    until(lambda: not folders(user, "kept"), "what was kept of deleted runs is freed", 60)


@pytest.fixture
def small_disk(session_folder: Path) -> Iterator[Path]:
    """A disk of 56 MiB."""
    top = Path(tempfile.mkdtemp(prefix="small-", dir=session_folder))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=56m,mode=777", "tmpfs", top], check=True)
    try:
        yield top
    finally:
        subprocess.run(["umount", "--lazy", top], check=True)
        top.rmdir()


FILLS = """
mkdir out && echo whole > out/whole
head -c 200000000 /dev/zero > filler || head -c 1000 /dev/zero > out/more || true
"""


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_job_that_filled_the_disk_is_collected(
    cli: Cli, s3: S3, small_disk: Path, tmp_path: Path, busybox: str, kind: str
) -> None:
    assert cli("runners", "add", "local", "--root", small_disk).returncode == 0
    if kind == "s3":
        assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
    folder = single(tmp_path / "full", busybox, FILLS, more="artifacts: [out]")

    done = cli("run", "job", "--name", "full", cwd=folder)

    job = json.loads(cli("runs", "full", "--json").stdout)["jobs"][0]
    assert job["status"] in ("done", "failed"), done.stderr
    assert cli("artifacts", "download", "full", "-o", tmp_path / "d").returncode == 0
    assert (tmp_path / "d/job/out/whole").read_text() == "whole\n"
    until(lambda: not list(small_disk.glob("*/*/jobs/*")), "its folder is gone, which makes room", 60)
    assert cli("runners", "remove", "local").returncode == 0
    assert list(small_disk.iterdir()) == list(Path("/dev/shm").glob("dstack-*")) == []


def test_what_is_kept_gives_way_where_the_disk_is_short(
    cli: Cli, small_disk: Path, folder: Path, tmp_path: Path, busybox: str
) -> None:
    """The disk is smaller than what should be free: everything kept is removed, but only once collected."""
    assert cli("runners", "add", "local", "--root", small_disk).returncode == 0
    waits = single(
        tmp_path / "waits", busybox, "echo mine > mine; until [ -e go ]; do sleep 0.1; done", more="artifacts: [mine]"
    )
    assert cli("run", "job", "--name", "waits", "-d", cwd=waits).returncode == 0
    mine = until(lambda: next(small_disk.glob("*/*/jobs/*/workflow/mine"), None), "it has begun", 60)

    use(cli, folder, SEEN)
    until(lambda: not list(small_disk.glob("*/*/kept/*")), "what was kept is freed", 60)
    assert mine.read_text() == "mine\n"
    use(cli, folder, SEEN)

    (mine.parent / "go").touch()
    assert cli("wait", "waits").returncode == 0
    assert json.loads(cli("artifacts", "list", "waits", "--json").stdout)[0]["path"] == "mine"
    assert cli("runners", "remove", "local").returncode == 0
    assert list(small_disk.iterdir()) == []
