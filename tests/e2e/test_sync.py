"""Artifacts are stored while their job runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import single
from tests.environment.account import Account
from tests.environment.product import Home
from tests.environment.s3 import BUCKET, S3
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SYNCED = "artifacts: [{path: out, sync: 1s}, last]"
WAIT = "until [ -e /go/%s ]; do sleep 0.05; done"
"""A job waits for the test, which shows itself in a folder of `cache`."""


def listed(cli: Cli, ref: str) -> dict[str, Any]:
    done = cli("artifacts", "list", ref, "--json")
    if done.returncode:
        assert "answered InternalError" in done.stderr, done.stderr  # rclone, about what is being written
        return {}
    return {view["path"]: view for view in json.loads(done.stdout)}


class Job:
    """A job with a synced folder that waits for the test before each step."""

    def __init__(self, cli: Cli, folder: Path, user: Account) -> None:
        self.cli, self.folder, self.user = cli, folder, user
        started = cli("run", "job", "--name", "one", "-d", cwd=folder)
        assert started.returncode == 0, started.stderr
        self.top = until(lambda: next(user.home.glob(".dstack-host/*/*"), None), "it is on its machine", 60)

    def tell(self, word: str) -> None:
        folder = until(lambda: next(self.top.glob("caches/*/*/data"), None), "it is launched", 60)
        (folder / word).touch()

    def end(self) -> dict[str, Any]:
        self.tell("end")
        assert self.cli("wait", "one").returncode == 0
        found: dict[str, Any] = json.loads(self.cli("runs", "one", "--json").stdout)["jobs"][0]
        return found


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, cli: Cli, s3: S3, runner: str, dstack_home: Home) -> S3 | Path:
    if request.param == "folder":
        return dstack_home.dstack / "server" / "artifacts"
    assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
    return s3


GROWS = f"""
mkdir -p out/deep && echo one > out/deep/a && echo still > out/busy && ln -s deep/a out/latest && mkfifo out/pipe
dd if=/dev/urandom of=large bs=1048576 count=9 2> /dev/null && mv large out
chmod 600 out/deep/a && sha256sum out/large
{WAIT % "more"}
echo two > out/deep/a.new && mv out/deep/a.new out/deep/a && rm out/latest && echo b > out/b
while ! [ -e /go/end ]; do echo more >> out/busy; done
rm out/busy && echo last > last && rm out/pipe
"""


def test_what_changed_is_stored_while_it_runs(
    cli: Cli, storage: S3 | Path, user: Account, tmp_path: Path, busybox: str
) -> None:
    earlier = len(storage.requests) if isinstance(storage, S3) else 0
    job = Job(cli, single(tmp_path / "p", busybox, GROWS, more=f"{SYNCED}\ncache: [/go]"), user)
    first = until(lambda: "out/large" in listed(cli, "one") and listed(cli, "one"), "it is synced", 60)
    assert set(first) == {"out/deep/a", "out/latest", "out/large", "out/busy"}
    assert all(view["partial"] for view in first.values())
    assert first["out/latest"]["link"] == "deep/a"
    assert first["out/deep/a"]["mode"] == 0o600
    shown = cli("artifacts", "list", "one")
    assert "job: incomplete" in shown.stderr
    assert cli("artifacts", "download", "one", "-o", tmp_path / "d").returncode == 0
    assert (tmp_path / "d/job/out/latest").read_bytes() == b"one\n"
    assert first["out/large"]["sha256"] in cli("logs", "one").stdout

    if isinstance(storage, S3):
        url = cli("artifacts", "url", "one", "out/large").stdout.strip()
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == first["out/large"]["sha256"]

    job.tell("more")
    second = until(lambda: "out/b" in listed(cli, "one") and listed(cli, "one"), "what changed is synced", 60)
    assert second["out/deep/a"]["sha256"] != first["out/deep/a"]["sha256"]
    assert second["out/large"] == first["out/large"]
    assert "out/latest" not in second
    busy = second["out/busy"]
    if busy != first["out/busy"]:  # nothing was written while a sync lasted: it was still, and is taken as it was then
        written = b"still\n" + b"more\n" * ((busy["size"] - 6) // 5)
        assert (busy["size"], busy["sha256"]) == (len(written), hashlib.sha256(written).hexdigest())

    ended = job.end()
    assert ended["status"] == "done", ended
    last = listed(cli, "one")
    assert set(last) == {"out/deep/a", "out/b", "out/large", "last"}
    assert not any("partial" in view for view in last.values())
    if isinstance(storage, S3):
        requests = storage.requests[earlier:]
        sent = [line for line in requests if line.endswith("CREATE OBJECT: bucket x/one/job/out/large")]
        assert len(sent) == 1, [line for line in requests if "out/large" in line]
    else:
        assert len(list(storage.glob(f".content/*/*/{last['out/large']['sha256']}-*"))) == 1


HOSTILE = """
mkdir -p a/out/d && echo mine > a/out/mine && mkdir -m 0 a/out/closed
while ! [ -e /go/end ]; do
  for to in {targets}; do
    ln -sn "$to" link && mv -T link a/out/file && rm a/out/file && echo x > a/out/file
    mv a/out/d a/out/was && ln -sn "$to" a/out/d && rm a/out/d && mv a/out/was a/out/d
    mv a was && ln -sn "$to" a && rm a && mv was a
    mkfifo a/out/pipe && rm a/out/pipe && mknod a/out/null c 1 3 && rm a/out/null
  done
done
"""


@pytest.mark.parametrize("storage", ["folder"], indirect=True)
def test_links_that_are_swapped_in_lead_nowhere(
    cli: Cli, storage: S3 | Path, user: Account, tmp_path: Path, busybox: str
) -> None:
    secrets = {user.home / "out": b"a user's secret", tmp_path / "root" / "out": b"root's secret"}
    for top, secret in secrets.items():
        (top / "d").mkdir(parents=True, exist_ok=True)
        for path in (top / "file", top / "d" / "file"):
            path.write_bytes(secret)
            path.chmod(0o600)
    before = {path: path.stat() for top in secrets for path in (top, *top.rglob("*"))}
    targets = [str(path) for top in secrets for path in (top.parent, top, top / "file")]
    targets += ["/dstack-job", "../" * 9 + str(tmp_path / "root" / "out"), "/proc/1", "."]
    script = HOSTILE.replace("{targets}", " ".join(targets))
    job = Job(
        cli, single(tmp_path / "p", busybox, script, more="artifacts: [{path: a/out, sync: 1s}]\ncache: [/go]"), user
    )
    looks: set[int] = set()

    def looked_often() -> bool:
        looks.update(stamp.stat().st_mtime_ns for stamp in job.top.glob("jobs/*/sync/0/stamp"))
        return len(looks) > 4 and "a/out/mine" in listed(cli, "one")

    until(looked_often, "it was synced a few times", 120)
    synced = listed(cli, "one")
    assert set(synced) <= {"a/out/mine", "a/out/file"} | {name for name in synced if synced[name].get("link")}
    ended = job.end()

    assert ended["status"] == "done", ended
    assert before == {path: path.stat() for top in secrets for path in (top, *top.rglob("*"))}
    assert isinstance(storage, Path)
    stored = [path.read_bytes() for path in storage.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(content == b"mine\n" for content in stored)
    assert not any(secret in content for content in stored for secret in secrets.values())


def test_a_lost_job_keeps_its_last_sync(
    cli: Cli, storage: S3 | Path, user: Account, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    job = Job(
        cli,
        single(tmp_path / "p", busybox, f"mkdir out; echo a > out/a; {WAIT % 'end'}", more=f"{SYNCED}\ncache: [/go]"),
        user,
    )
    until(lambda: "out/a" in listed(cli, "one"), "it is synced", 60)

    (folder,) = job.top.glob("jobs/*")
    shutil.rmtree(folder / "workflow")
    subprocess.run([*docker, "rm", "-f", f"dstack-{folder.name}"], check=True, capture_output=True)

    ended = cli("wait", "one")
    assert ended.returncode == 125, ended.stderr
    found = json.loads(cli("runs", "one", "--json").stdout)["jobs"][0]
    assert found["status"] == "lost"
    assert found["artifacts"]["files"] == 1
    assert listed(cli, "one")["out/a"]["partial"]
