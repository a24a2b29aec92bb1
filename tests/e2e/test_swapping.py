"""A process that a job left running swaps files during collection: nothing outside its tree is read or changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import single
from tests.environment.account import Account
from tests.environment.s3 import BUCKET, S3
from tests.environment.sshd import Sshd
from tests.environment.throttle import Throttle
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SIZE = 1_000_000
SECRET = b"s" * SIZE
SPEED = 200_000
"""Bytes a second at which the storage takes them, until the test has seen enough."""

MAKES = f"""
mkdir -p a/out/deep/er a/out/closed
for name in a/out/file a/out/deep/file a/out/deep/er/file a/out/last; do head -c {SIZE} /dev/urandom > $name; done
sha256sum a/out/file a/out/deep/file a/out/deep/er/file a/out/last
chmod 0 a/out/closed
echo ready
until [ -e end ]; do sleep 0.05; done
"""
SWAPS = """
cd /tree/a
while :; do
  for to in {targets}; do
    ln -sn "$to" link && mv out/file was && mv -T link out/file && rm out/file
    mkfifo out/file && rm out/file && mv was out/file
    mv out/deep was && ln -sn "$to" out/deep && rm out/deep && mkfifo out/deep && rm out/deep && mv was out/deep
    mv out/deep/er was && ln -sn "$to" out/deep/er && rm out/deep/er && mv was out/deep/er
    ln -sn "$to" closed && mv out/closed was && mv -T closed out/closed && rm out/closed && mv was out/closed
    if [ -e /count/all ]; then cd .. && mv a was && ln -sn "$to" a && rm a && mv was a && cd a; fi
    rounds=$((rounds + 1)) && echo $rounds > /count/new && mv /count/new /count/rounds
  done
done
"""


@pytest.fixture(params=["folder", "s3"])
def way(request: pytest.FixtureRequest, cli: Cli, sshd: Sshd, s3: S3, runner: str, user: Account) -> Iterator[Throttle]:
    """The connection over which artifacts leave the machine: to the server, or to the bucket."""
    throttle = Throttle(s3.port if request.param == "s3" else sshd.port)
    try:
        if request.param == "s3":
            url = f"http://127.0.0.1:{throttle.port}"
            assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", url).returncode == 0
        there = f"{sshd.user}@127.0.0.1:{throttle.port if request.param == 'folder' else sshd.port}"
        options = ["--identity", str(sshd.identity), "--fingerprint", sshd.fingerprint, "--root", "~/.dstack-far"]
        assert cli("runners", "add", there, "--name", "far", *options).returncode == 0
        yield throttle
        throttle.speed = throttle.sent = None
        cli("stop", "--all", "--abort", "-y")
        until(lambda: not json.loads(cli("runners", "--json").stdout)[-1]["jobs"], "nothing runs there", 60)
        assert cli("runners", "remove", "far").returncode == 0
    finally:
        throttle.close()


@pytest.fixture
def outside(user: Account, tmp_path: Path) -> Iterator[list[Path]]:
    """Folders of the SSH user and of root, with secrets, that look like the job's."""
    tops = [user.home / "outside", tmp_path / "root" / "outside"]
    for top in tops:
        (top / "er").mkdir(parents=True)
        for path in (top / "file", top / "er" / "file"):
            path.write_bytes(SECRET)
            path.chmod(0o400)
        (top / "closed").mkdir(mode=0)
    for path in (tops[0], *tops[0].rglob("*")):
        shutil.chown(path, user.name)
    for top in tops:
        for path in top.rglob("file"):
            os.utime(path, (1, 2))  # older than the last change, so that the next access is noted
    yield tops
    shutil.rmtree(tops[0])


def seen(tops: list[Path]) -> dict[Path, tuple[int, ...]]:
    """Return everything that shows whether something there was changed or read."""
    found = {}
    for path in (path for top in tops for path in (top, *top.rglob("*"))):
        stat = path.lstat()
        read = 0 if path.is_dir() else stat.st_atime_ns
        found[path] = (stat.st_mode, stat.st_uid, stat.st_nlink, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, read)
    return found


def test_what_is_swapped_while_it_is_collected_leads_nowhere(
    cli: Cli, way: Throttle, user: Account, docker: list[str], outside: list[Path], tmp_path: Path, busybox: str
) -> None:
    before = seen(outside)
    folder = single(tmp_path / "p", busybox, MAKES, more="artifacts: [a/out]")
    assert cli("run", "job", "--name", "one", "--runner", "far", "-d", cwd=folder).returncode == 0
    until(lambda: "ready" in cli("logs", "one").stdout, "it has made all", 60)
    tree = next(user.home.glob(".dstack-far/*/*/jobs/*/workflow"))
    (tmp_path / "count").mkdir()
    links = [path for top in outside for path in (top, top / "file", top / "closed")]
    script = SWAPS.replace("{targets}", " ".join(map(str, links)))
    mounts = ["-v", f"{tree}:/tree", "-v", f"{tmp_path / 'count'}:/count", "--network", "none"]
    swapping = [*docker, "run", "-d", *mounts, busybox, "sh", "-c", script]
    container = subprocess.run(swapping, check=True, capture_output=True, text=True).stdout.strip()

    def rounds() -> int:
        count = tmp_path / "count" / "rounds"
        return int(count.read_text()) if count.exists() else 0

    try:
        until(lambda: rounds() > 10, "it swaps", 60)
        way.speed = way.sent = SPEED
        (tree / "end").touch()
        until((tree.parent / "hashed").exists, "it is listed", 60)
        (tmp_path / "count" / "all").touch()
        begun = rounds()
        until(lambda: rounds() > begun + 50, "much is swapped while it is sent", 60)
        assert status(cli) == "uploading"
        way.speed = way.sent = None
        cli("wait", "one", timeout=120)
    finally:
        subprocess.run([*docker, "rm", "-f", container], check=True, capture_output=True)

    assert seen(outside) == before
    ended = json.loads(cli("runs", "one", "--json").stdout)["jobs"][0]
    assert ended["status"] in ("done", "failed"), ended
    for words in ("was not produced", "could not be read", "could not be listed"):
        assert words not in (ended["reason"] or "") or "replaced while it was read" in ended["reason"], ended
    made = dict(reversed(line.split("  ")) for line in cli("logs", "one").stdout.splitlines() if "  " in line)
    listed = {view["path"]: view for view in json.loads(cli("artifacts", "list", "one", "--json").stdout)}
    files = {path: view["sha256"] for path, view in listed.items() if not view.get("link")}
    assert "a/out/last" in files, "what nobody swapped is there"
    assert files.items() <= made.items()
    assert cli("artifacts", "download", "one", "-o", tmp_path / "d").returncode == 0
    until(lambda: not list(user.home.glob(".dstack-far/*/*/jobs/*")), "its folder is removed", 60)
    assert seen(outside) == before
    (outside[0] / "file").read_bytes()
    assert seen(outside) != before, "reading shows"


def status(cli: Cli) -> str:
    return str(json.loads(cli("runs", "one", "--json").stdout)["status"])
