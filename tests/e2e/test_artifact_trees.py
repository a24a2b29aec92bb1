"""The tree of an artifact is the same wherever it arrives, and it is read from where it lies."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import project, single
from tests.environment.account import Account
from tests.environment.s3 import BUCKET, S3
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

LIST = """
          find out kept only | sort | while read -r path; do
            if [ -h "$path" ]; then echo "$path -> $(readlink "$path")"; else stat -c '%a %n' "$path"; fi
          done
          cat out/deep/model kept/tracked
"""
WORKFLOWS = """
workflows:
  - name: tree
    image: {image}
    commands:
      - mkdir -p out/deep out/none/in only out/shared && echo weights > out/deep/model && echo tracked > kept/tracked
      - ln -s $PWD/out/deep/model out/latest && ln -s /workflow/sub/out out/none/top && ln -s deep out/here
      - chmod 600 out/deep/model && chmod 2770 out/shared && chmod 500 out/none/in && chmod 0 out/none only
      - chmod 555 out/deep && chmod 711 kept
    artifacts: [out, kept, only]
    depends-on: {{repo: {{include: []}}}}
  - name: use
    image: {image}
    commands:
      - |{LIST}
    depends-on: {{workflows: [tree]}}
  - name: other
    image: {image}
    user: 1234
    commands:
      - |
        stat -c '%a %n' out/deep kept kept/tracked out/deep/model; cat kept/tracked out/latest
    depends-on: {{workflows: [tree]}}
"""
TREE = """711 kept
644 kept/tracked
0 only
755 out
555 out/deep
600 out/deep/model
out/here -> deep
out/latest -> deep/model
0 out/none
500 out/none/in
out/none/top -> ..
2770 out/shared
"""
SEEN = TREE + "weights\ntracked\n"


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    """A project below the root of its repository, with a tracked folder that a job changes."""
    root = tmp_path / "p"
    (root / "sub/kept").mkdir(parents=True)
    (root / "sub/kept/tracked").write_text("before\n")
    project(root / "sub", WORKFLOWS.format(image=busybox, LIST=LIST), commit=False)
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=T", "-c", "user.email=t@t", "commit", "-qm", "1"]):
        subprocess.run(["git", "-C", root, *words], check=True)
    return root / "sub"


def downloaded(top: Path) -> str:
    lines = []
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        lines.append(
            f"{name} -> {path.readlink()}" if path.is_symlink() else f"{path.stat().st_mode & 0o7777:o} {name}"
        )
    return "\n".join(lines) + "\n"


def log_of(cli: Cli, run: str, workflow: str) -> str:
    jobs = json.loads(cli("runs", run, "--json").stdout)["jobs"]
    return cli("logs", next(job["id"] for job in jobs if job["workflow"] == workflow)).stdout


def forget_kept(user: Account) -> None:
    """Remove what the machine keeps for dependents, so that it comes from the storage."""
    until(lambda: not list(user.home.glob(".dstack-host/*/*/jobs/*")), "the jobs' folders are gone")
    for kept in user.home.glob(".dstack-host/*/*/kept/*"):
        shutil.rmtree(kept)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_the_same_tree_everywhere(
    cli: Cli, s3: S3, runner: str, user: Account, folder: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "s3":
        assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0

    made = cli("run", "tree", "--name", "made", cwd=folder)
    assert made.returncode == 0, made.stderr
    until(lambda: list(user.home.glob(".dstack-host/*/*/kept/*")), "its artifacts are kept on the machine")
    for name, where in (("beside", "kept there"), ("elsewhere", "in the storage")):
        if name == "elsewhere":
            forget_kept(user)
        used = cli("run", "use", "--name", name, cwd=folder)
        assert used.returncode == 0, used.stderr
        assert log_of(cli, name, "use") == SEEN, where
    forget_kept(user)
    other = cli("run", "other", "--name", "other", cwd=folder)
    assert other.returncode == 0, other.stderr
    assert (
        log_of(cli, "other", "other")
        == "555 out/deep\n711 kept\n644 kept/tracked\n600 out/deep/model\ntracked\nweights\n"
    )

    assert cli("artifacts", "download", "made", "-o", tmp_path / "d").returncode == 0
    assert downloaded(tmp_path / "d/tree") == TREE
    again = cli("artifacts", "download", "made", "-o", tmp_path / "d")
    assert "5 already downloaded" in again.stderr, again.stderr
    assert downloaded(tmp_path / "d/tree") == TREE
    assert cli("runs", "delete", "beside", "elsewhere", "made", "-y").returncode == 0


def test_artifacts_are_read_from_where_they_lie(
    cli: Cli, s3: S3, runner: str, user: Account, folder: Path, tmp_path: Path
) -> None:
    assert cli("run", "tree", "--name", "made", cwd=folder).returncode == 0
    before = json.loads(cli("artifacts", "list", "made", "--json").stdout)
    assert len(before) == 5

    assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0

    assert json.loads(cli("artifacts", "list", "made", "--json").stdout) == before
    assert cli("artifacts", "download", "made", "-o", tmp_path / "d").returncode == 0
    assert downloaded(tmp_path / "d/tree") == TREE
    no_url = cli("artifacts", "url", "made", "out/deep/model")
    assert no_url.returncode == 2
    assert "artifacts are stored in /" in no_url.stderr
    forget_kept(user)
    used = cli("run", "use", "--name", "used", cwd=folder)
    assert used.returncode == 0, used.stderr
    assert log_of(cli, "used", "use") == SEEN
    assert [job["cached"] for job in json.loads(cli("runs", "used", "--json").stdout)["jobs"]] == [True, False]
    assert cli("runs", "delete", "used", "made", "-y").returncode == 0


@pytest.fixture
def volumes(docker: list[str], busybox: str) -> Iterator[str]:
    """An image with volumes in and beside the project's tree."""
    name = "dstack-test/volumes:1"
    made = subprocess.run([*docker, "create", busybox, "true"], capture_output=True, text=True, check=True)
    change = 'VOLUME ["/workflow/out", "/workflow/./src//", "/x/../workflow/out/in", "/data", "/workflow"]'
    subprocess.run([*docker, "commit", "--change", change, made.stdout.strip(), name], capture_output=True, check=True)
    subprocess.run([*docker, "rm", made.stdout.strip()], capture_output=True, check=True)
    yield name
    subprocess.run([*docker, "rmi", "-f", name], capture_output=True, check=True)


def test_a_volume_of_the_image_hides_nothing_of_the_tree(
    cli: Cli, runner: str, volumes: str, docker: list[str], tmp_path: Path
) -> None:
    commands = ("cat src/code", "echo made > out/model; echo deep > out/in/model; echo new > src/new; echo x > /data/x")
    folder = single(tmp_path / "p", volumes, *commands, more="artifacts: [out, src]")
    (folder / "src").mkdir()
    (folder / "src/code").write_text("mine\n")

    done = cli("run", "job", "--name", "made", cwd=folder)

    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
    stored = [each["path"] for each in json.loads(cli("artifacts", "list", "made", "--json").stdout)]
    assert stored == ["out/in/model", "out/model", "src/code", "src/new"]

    linked = single(tmp_path / "q", volumes, "echo ran")
    (linked / "src").symlink_to("elsewhere")
    refused = cli("run", "job", cwd=linked)
    assert refused.returncode == 125
    assert "has a volume at /workflow/src, where the project has a link" in refused.stderr
    assert "ran" not in refused.stdout
