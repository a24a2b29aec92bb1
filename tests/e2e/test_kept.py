"""Artifacts that stay on the machine where they were made, for jobs that depend on them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import project
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
    """Where the bytes of the stored artifacts lie."""
    if request.param == "folder":
        return dstack_home.dstack / "server" / "artifacts"
    assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
    return s3.folder / "objects" / BUCKET / "x"


def use(cli: Cli, folder: Path, seen: str) -> dict[str, Any]:
    """Run what depends on the others, which come from the cache after the first time."""
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
