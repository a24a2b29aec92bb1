"""Reading a remote: a real git server on loopback, and what is refused."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.engine.triggers.commit import CommitReader, NotWantedError, touches
from dstack.errors import ErrorCode, ProjectError, UsageError
from dstack.mirror.mirror import Mirror
from dstack.mirror.remote import RemoteError, RemoteRepository
from dstack.model.job.ticks import Tick, TriggerRecord
from dstack.model.project.workflow import CodeBranch, Push, Trigger
from dstack.model.triggers.codes import TriggerCode
from tests.e2e.project import git, project
from tests.environment.sshd import free_port
from tests.environment.waiting import until

WORKFLOWS = """\
workflows:
  - name: train
    image: busybox
    commands: ["true"]
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A project whose origin is served."""
    folder = project(tmp_path / "work", WORKFLOWS, "configs: {global: {epochs: 1}}\n")
    git(tmp_path, "clone", "-q", "--bare", str(folder), str(tmp_path / "served.git"))
    git(folder, "remote", "add", "origin", str(tmp_path / "served.git"))
    return folder


@pytest.fixture
def url(work: Path) -> Iterator[str]:
    """The address of a git daemon."""
    port = free_port()
    words = ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={work.parent}"]
    daemon = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f"git://127.0.0.1:{port}/served.git"
    ask = ["git", "ls-remote", address]
    until(lambda: subprocess.run(ask, capture_output=True).returncode == 0, "git daemon answers")
    yield address
    os.killpg(daemon.pid, 15)
    daemon.wait()


def push(work: Path, message: str, **files: str) -> str:
    for name, text in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text)
    git(work, "add", "-A")
    git(work, "commit", "-qm", message, "--allow-empty")
    git(work, "push", "-q", "origin", "main")
    return git(work, "rev-parse", "HEAD").strip()


def reader(
    url: str, mirror: Path, commit: str | None = None, before: str | None = None, **push: object
) -> CommitReader:
    definition = Trigger(name="t", workflow="train", variables={"epochs": "3"}, code=CodeBranch(branch="main"))
    if commit:
        definition = replace(definition, code="snapshot", push=Push(branch="main", **push))  # type: ignore[arg-type]
    record = TriggerRecord(
        name="t", uid="u", owner="ann", definition=definition, timezone="UTC", repo="r", applied_at="", position=0.0
    )
    tick = Tick(trigger="t", key="k", at="", commit=commit, before=before)
    return CommitReader(record, tick, RemoteRepository(url, trusted=True), Mirror(mirror))


def test_a_branch_is_asked_for_and_fetched_with_its_definitions(url: str, work: Path, tmp_path: Path) -> None:
    commit = push(work, "two", **{"a.py": "print(2)\n"})
    assert RemoteRepository(url, trusted=True).head("main") == commit

    template = reader(url, tmp_path / "m" / "r.git").read()

    snapshot = template.snapshot
    assert (snapshot.commit, snapshot.branch, snapshot.depth) == (commit, "main", 1)
    assert template.variables["train"].all == {"epochs": "3"}
    mirror = Mirror(tmp_path / "m" / "r.git")
    assert mirror.has(snapshot)
    assert [file.path for file in mirror.files(snapshot)] == [".dstack/configs.yaml", ".dstack/workflows.yaml", "a.py"]
    again = push(work, "three", **{"a.py": "print(3)\n"})
    assert reader(url, tmp_path / "m" / "r.git").read().snapshot.commit == again
    assert [path.name for path in (tmp_path / "m").glob("fetch-*")] == []


def test_a_workflow_gets_the_history_that_it_wants(url: str, work: Path, tmp_path: Path) -> None:
    push(work, "two", **{".dstack/workflows.yaml": f"{WORKFLOWS}    fetch-depth: 0\n"})

    snapshot = reader(url, tmp_path / "m" / "r.git").read().snapshot

    assert snapshot.depth == 0
    assert Mirror(tmp_path / "m" / "r.git").has(snapshot)


def test_a_push_that_is_not_wanted_starts_nothing(url: str, work: Path, tmp_path: Path) -> None:
    first = git(work, "rev-parse", "HEAD").strip()
    second = push(work, "docs only", **{"README": "x"})
    third = push(work, "wip [skip dstack]", **{"src/a": "x"})
    fourth = push(work, "real", **{"src/a": "y"})
    mirror = tmp_path / "m" / "r.git"

    for commit, before, code in (
        (second, first, TriggerCode.OTHER_PATHS),
        (third, second, TriggerCode.SKIP_MESSAGE),
    ):
        with pytest.raises(NotWantedError) as skipped:
            reader(url, mirror, commit, before, paths=("src/",)).read()
        assert skipped.value.code == code
    assert reader(url, mirror, fourth, third, paths=("src/",)).read().snapshot.commit == fourth
    assert reader(url, mirror, second).read().snapshot.commit == second


def test_what_the_commit_lacks_is_said(url: str, work: Path, tmp_path: Path) -> None:
    push(work, "renamed", **{".dstack/workflows.yaml": WORKFLOWS.replace("train", "learn")})
    with pytest.raises(UsageError, match="train"):
        reader(url, tmp_path / "m" / "r.git").read()
    push(work, "broken", **{".dstack/workflows.yaml": "workflows: 1\n"})
    with pytest.raises(ProjectError, match=r"\.dstack/workflows\.yaml:1"):
        reader(url, tmp_path / "m" / "r.git").read()


def test_a_branch_that_is_gone_and_a_server_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(RemoteError) as gone:
        RemoteRepository(url, trusted=True).head("nowhere")
    assert gone.value.code == ErrorCode.NO_BRANCH
    with pytest.raises(RemoteError, match="can't be fetched: fatal"):
        RemoteRepository(f"git://127.0.0.1:{free_port()}/x", trusted=True).head("main")


@pytest.mark.parametrize("url", ["ext::touch MARK", "file:///SERVED", "git@127.0.0.1:x"])
def test_a_member_reaches_nothing_of_the_servers_user(url: str, work: Path, tmp_path: Path) -> None:
    named = url.replace("MARK", str(tmp_path / "mark")).replace("/SERVED", str(tmp_path / "served.git"))
    with pytest.raises(RemoteError, match="not allowed"):
        RemoteRepository(named).head("main")
    assert not (tmp_path / "mark").exists()


def test_no_remote_runs_a_command(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="not allowed"):
        RemoteRepository(f"ext::touch {tmp_path / 'mark'}", trusted=True).head("main")
    assert not (tmp_path / "mark").exists()


def test_paths_are_relative_to_the_project() -> None:
    assert touches(("src/",), "sub", ["sub/src/a"])
    assert not touches(("src/",), "sub", ["src/a", "sub/other"])
