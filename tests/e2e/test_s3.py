"""Artifacts on a real S3 server: uploaded by the host, which never sees a secret."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import project, single
from tests.environment.product import Home, servers
from tests.environment.proxy import Proxy
from tests.environment.s3 import BUCKET, S3, SECRET
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

CHAIN = """
workflows:
  - name: make
    image: {image}
    commands:
      - |
        mkdir -p out/deep
        echo one > out/a
        echo one > out/same
        printf '' > 'out/deep/-empty [x]{{y}}?*'
        printf 'tricky' > "out/it's \\"quoted\\" \\$(id) ünï
        code"
        dd if=/dev/urandom of=out/large bs=1048576 count=70 2> /dev/null
        chmod 755 out/a
        ln -s a out/latest
    artifacts: [out]
    depends-on: {{repo: {{include: [.gitignore]}}}}
  - name: use
    image: {image}
    commands:
      - cat out/a out/latest && ls -l out/a && cd out && sha256sum large && find . | sort && echo more >> a
    artifacts: [out/a]
    depends-on: {{workflows: [make]}}
"""


@pytest.fixture
def chain(tmp_path: Path, busybox: str) -> Path:
    return project(tmp_path / "p", CHAIN.format(image=busybox))


@pytest.fixture
def storage(cli: Cli, s3: S3, runner: str) -> S3:
    done = cli("config", "--storage", f"s3://{BUCKET}/team/x", "--endpoint-url", s3.url)
    assert done.returncode == 0, done.stderr
    return s3


def job_of(cli: Cli, run: str, index: int = 0) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)["jobs"][index]
    return job


def test_a_chain_of_jobs_and_the_cache(cli: Cli, storage: S3, chain: Path, tmp_path: Path, sshd: Sshd) -> None:
    first = cli("run", "use", "--name", "first", cwd=chain)
    assert first.returncode == 0, first.stderr + first.stdout
    assert first.stdout.count("one\n") == 2
    assert "-rwxr-xr-x" in first.stdout

    objects = storage.objects
    assert sum(key.startswith("team/x/first/make/out/") for key in objects) == 5
    assert objects["team/x/first/make/out/a"] == objects["team/x/first/make/out/same"] == b"one\n"
    assert objects["team/x/first/use/out/a"] == b"one\nmore\n"
    assert hashlib.sha256(objects["team/x/first/make/out/large"]).hexdigest() in first.stdout
    manifest = json.loads(objects["team/x/first/make/manifest.json"])
    assert manifest["status"] == "done"

    assert cli("artifacts", "download", "first", "-o", tmp_path / "d").returncode == 0
    assert (tmp_path / "d/make/out/large").read_bytes() == objects["team/x/first/make/out/large"]
    assert os.readlink(tmp_path / "d/make/out/latest") == "a"

    second = cli("run", "use", "--name", "second", cwd=chain)
    assert second.returncode == 0, second.stderr
    assert job_of(cli, "second")["cache"] == {"hit": True, "why": "nothing changed since first"}

    (storage.folder / "objects" / BUCKET / "team/x/first/make/out/a").write_bytes(b"two\n")
    third = cli("run", "use", "--name", "third", cwd=chain)
    assert third.returncode == 0, third.stderr
    assert "the result of first is damaged: 'out/a' no longer matches its checksum" in third.stderr
    assert storage.objects["team/x/third/make/out/a"] == b"one\n"


def test_equal_content_is_copied_in_the_bucket(cli: Cli, storage: S3, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, "echo same > a; echo $DSTACK_RUN_NAME > b", more="artifacts: [a, b]")
    assert cli("run", "job", "--name", "one", cwd=folder).returncode == 0
    assert cli("run", "job", "--name", "two", cwd=folder).returncode == 0

    assert storage.objects["team/x/two/job/a"] == b"same\n"
    assert storage.objects["team/x/two/job/b"] == b"two\n"
    copied = [line for line in storage.requests if "COPY: " in line and "two/job/" in line]
    assert [line.split("COPY: ")[1] for line in copied] == ["bucket/team/x/one/job/a TO bucket team/x/two/job/a"]


@pytest.mark.parametrize(
    ("environment", "url", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, f"s3://{BUCKET}/x", "S3 refuses the server's credentials"),
        ({}, "s3://no-such-bucket/x", "there is no bucket 'no-such-bucket'"),
        ({}, "s3://", "is not a valid storage URL"),
    ],
)
def test_a_bucket_that_can_not_be_used_is_refused(
    cli: Cli, s3: S3, environment: dict[str, str], url: str, said: str
) -> None:
    done = cli("config", "--storage", url, "--endpoint-url", s3.url, env=environment)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not json.loads(cli("config", "--json").stdout)["storage"].startswith("s3:")


def content(path: Path) -> bytes:
    """Return a file's content; empty if it is gone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_a_launch_waits_for_a_storage_that_is_down(cli: Cli, storage: S3, tmp_path: Path, busybox: str) -> None:
    # Given a job with artifacts, submitted while nothing answers where the bucket was
    storage.kill()
    folder = single(tmp_path / "p", busybox, "echo ran\nmkdir out\necho made >out/made", more="artifacts: [out]")
    assert cli("run", "job", "--name", "one", "-d", cwd=folder).returncode == 0

    # Then it waits, and says since when
    until(lambda: job_of(cli, "one")["reason_code"] == "storage-unavailable", "it says what it waits for", 120)
    waiting = job_of(cli, "one")
    assert waiting["status"] == "preparing"
    assert waiting["reason"].startswith("the storage has been unavailable since 20")

    # And it runs once the bucket is back
    storage.start()
    assert cli("wait", "one", timeout=240).returncode == 0
    assert cli("logs", "one").stdout == "ran\n"
    assert storage.objects["team/x/one/job/out/made"] == b"made\n"


def test_the_secret_is_nowhere_on_the_host(
    cli: Cli, dstack_home: Home, storage: S3, user: Any, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    commands = f"env; cat /proc/[0-9]*/environ\nmkdir out\n{FILES}"
    folder = single(tmp_path / "p", busybox, commands, more="artifacts: [out]")
    assert cli("run", "job", "--name", "one", "-d", cwd=folder).returncode == 0
    plan = user.home / ".dstack-host"
    until(lambda: list(plan.glob("*/*/jobs/*/upload/work")), "the host uploads", 60)
    storage.kill()
    job = job_of(cli, "one")["id"]

    files = [p for p in user.home.rglob("*") if p.is_file() and not p.is_symlink()]
    assert any(p.is_relative_to(plan) for p in files)
    seen = [content(path) for path in files]
    assert any(b"X-Amz-Signature" in each for each in seen)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            owned = process.stat().st_uid == user.uid
            words = (process / "cmdline").read_bytes()
            assert b"X-Amz-Signature" not in words
            if b"--auth-key" not in words:  # of the S3 server itself
                seen.append(words)
            if owned:
                seen.append((process / "environ").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    seen.append(subprocess.run([*docker, "inspect", f"dstack-{job}"], capture_output=True, check=False).stdout)
    seen.append(cli("logs", "one").stdout.encode("utf-8", "surrogateescape"))
    seen.append((dstack_home.dstack / "server" / "server.log").read_bytes())
    assert not any(SECRET.encode() in each for each in seen)

    storage.start()
    assert cli("wait", "one").returncode == 0
    assert len(storage.objects["team/x/one/job/out/large"]) == 140 * 1048576


FILES = """
n=0
while [ $n -lt 400 ]; do n=$((n+1)); dd if=/dev/urandom of=out/$n bs=40000 count=1 2> /dev/null; done
dd if=/dev/urandom of=out/large bs=1048576 count=140 2> /dev/null
sha256sum out/* > sums
"""


@pytest.mark.parametrize("killed", ["endpoint", "server"])
def test_nothing_is_lost_or_sent_twice_when_something_dies(
    cli: Cli, dstack_home: Home, s3: S3, proxy: Proxy, runner: str, tmp_path: Path, busybox: str, killed: str
) -> None:
    done = cli("config", "--storage", f"s3://{BUCKET}/team/x", "--endpoint-url", proxy.url)
    assert done.returncode == 0, done.stderr
    folder = single(tmp_path / "p", busybox, f"mkdir out\n{FILES}", more="artifacts: [out, sums]")
    assert cli("run", "job", "--name", "one", "-d", cwd=folder, timeout=240).returncode == 0
    prefix = f"{BUCKET}/team/x/one/job/"
    small = {f"{prefix}out/{number}" for number in range(1, 401)}
    until(lambda: len(taken(proxy, small)) > 40, "a part of it has arrived", 120)

    if killed == "endpoint":
        s3.kill()
        broken = len(proxy.passed)
        until(lambda: len(proxy.passed) > broken + 20, "the host tries again, in vain", 120)
        s3.start()
    else:
        for pid in servers(dstack_home.dstack):
            os.kill(pid, signal.SIGKILL)
        until(lambda: taken(proxy, small) == small, "the host goes on without the server", 60)
    waited = cli("wait", "one", timeout=240)

    assert waited.returncode == 0, waited.stderr
    assert job_of(cli, "one")["reason"] is None
    objects = s3.objects
    for line in objects["team/x/one/job/sums"].decode().splitlines():
        digest, path = line.split()
        assert hashlib.sha256(objects[f"team/x/one/job/{path}"]).hexdigest() == digest
    stored = proxy.stored()
    if killed == "endpoint":  # rclone forgets unfinished multipart uploads with its life
        stored = Counter({piece: count for piece, count in stored.items() if not piece[1]})
    twice = [piece for piece, count in stored.items() if count > 1]
    assert small <= {key for key, _ in stored}
    assert not twice, "sent again though it had arrived"


def taken(proxy: Proxy, keys: set[str]) -> set[str]:
    """Return the objects that S3 has acknowledged."""
    return keys & {key for key, _ in proxy.stored()}


def test_an_aborted_upload_leaves_nothing(cli: Cli, storage: S3, user: Any, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, f"mkdir out\n{FILES}", more="artifacts: [out, sums]")
    assert cli("run", "job", "--name", "one", "-d", cwd=folder, timeout=240).returncode == 0
    top = storage.folder / "objects" / BUCKET / "team/x/one/job/out"
    until(lambda: top.exists() and len(list(top.iterdir())) > 40, "a part of it has arrived", 120)
    storage.freeze()
    assert workers(user.uid)

    assert cli("stop", "one", "--abort", "-y").returncode == 0
    until(lambda: not workers(user.uid), "nothing sends any more")
    storage.thaw()

    assert cli("wait", "one").returncode == 143
    assert job_of(cli, "one")["reason"] == "aborted; nothing was stored"
    assert storage.objects == {}


def workers(uid: int) -> list[bytes]:
    """Return the processes of a user's uploads: workers and curl."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if process.stat().st_uid == uid and (b"/upload/work" in words or words.startswith(b"curl")):
                found.append(words)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
