"""What the normal tests show with rclone, and more, on Ceph RGW: real multipart uploads, large and many files, cuts.

Opt-in: tests/rgw/rgw install; pytest -m rgw -s tests/rgw
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e.project import single
from tests.environment import needs
from tests.environment.product import Home, servers
from tests.environment.sshd import free_port
from tests.environment.waiting import until

pytestmark = pytest.mark.rgw

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = Path(__file__).parent / "rgw"
KEYS = {"AWS_ACCESS_KEY_ID": "OracleAccess", "AWS_SECRET_ACCESS_KEY": "OracleSecretKey", "AWS_CONFIG_FILE": "/dev/null"}
BUCKET = "show"
MIB = 1 << 20


class Rgw:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def do(self, command: str) -> None:
        words = [SCRIPT, command, self.folder, str(self.port)]
        subprocess.run(words, check=True, timeout=180, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    @property
    def client(self) -> Any:
        keys = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
        return boto3.session.Session(**keys).client("s3", endpoint_url=self.url, region_name="us-east-1")

    def objects(self, prefix: str) -> dict[str, Any]:
        """The objects, by what follows the prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"].removeprefix(prefix): entry for page in pages for entry in page.get("Contents", ())}

    def sha256(self, key: str) -> str:
        found = hashlib.sha256()
        for block in self.client.get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(MIB):
            found.update(block)
        return found.hexdigest()


@pytest.fixture(scope="module")
def rgw() -> Iterator[Rgw]:
    if not shutil.which("radosgw"):
        needs.missing(f"radosgw is not installed; install it: {SCRIPT} install")
    server = Rgw(Path(tempfile.mkdtemp(prefix="rgw-", dir="/tmp")))
    server.do("start")
    try:
        server.client.create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.do("stop")
        shutil.rmtree(server.folder)


@pytest.fixture
def keys(dstack_home: Home) -> None:
    """The server has them from its start."""
    dstack_home.environment.update(KEYS)


@pytest.fixture
def storage(cli: Cli, keys: None, runner: str, rgw: Rgw) -> Rgw:
    done = cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", rgw.url)
    assert done.returncode == 0, done.stderr
    return rgw


def manifest(cli: Cli, run: str) -> dict[str, dict[str, Any]]:
    return {view["path"]: view for view in json.loads(cli("artifacts", "list", run, "--json", timeout=300).stdout)}


def submit(cli: Cli, folder: Path, run: str) -> None:
    done = cli("run", "job", "-d", "--name", run, cwd=folder)
    assert done.returncode == 0, done.stderr


def status(cli: Cli, run: str) -> str:
    return str(json.loads(cli("runs", run, "--json").stdout)["status"])


def storing(cli: Cli, run: str) -> float:
    until(lambda: status(cli, run) in ("uploading", "done"), "the artifacts are being stored", 300)
    return time.monotonic()


def test_6_gb_and_5000_small_files(cli: Cli, storage: Rgw, tmp_path: Path, busybox: str) -> None:
    commands = """
mkdir -p out/many
n=0; while [ $n -lt 5000 ]; do n=$((n+1)); echo "$n of many" > "out/many/$n"; done
truncate -s 6442450944 out/sparse
echo end | dd of=out/sparse bs=1048576 seek=3000 conv=notrunc 2> /dev/null
"""
    submit(cli, single(tmp_path / "p", busybox, commands, more="artifacts: [out]"), "large")
    begun = storing(cli, "large")
    assert cli("wait", "large", timeout=3000).returncode == 0
    took = time.monotonic() - begun

    stored, listed = storage.objects("x/large/job/"), manifest(cli, "large")
    assert len(stored) == 5002
    assert stored["out/sparse"]["Size"] == 6 * 1024**3
    assert stored["out/sparse"]["ETag"].endswith('-96"')
    begun = time.monotonic()
    for path in ["out/sparse", *(f"out/many/{n}" for n in range(1, 5001, 50))]:
        assert storage.sha256(f"x/large/job/{path}") == listed[path]["sha256"]
    print(f"\n6 GB and 5000 files: hashed, sent, listed in {took:.0f} s; read back in {time.monotonic() - begun:.0f} s")


NOISE = """
mkdir out
n=0; while [ $n -lt 1500 ]; do n=$((n+1)); echo "$DSTACK_RUN_NAME $n" > out/$n; done
dd if=/dev/urandom of=out/large bs=1048576 count=1500 2> /dev/null
"""


@pytest.mark.parametrize("killed", ["endpoint", "server"])
def test_something_is_away_for_30_seconds(
    cli: Cli, dstack_home: Home, storage: Rgw, tmp_path: Path, busybox: str, killed: str
) -> None:
    submit(cli, single(tmp_path / "p", busybox, NOISE, more="artifacts: [out]"), killed)
    prefix = f"x/{killed}/job/"
    until(lambda: len(storage.objects(prefix)) > 300, "a part has arrived", 300)
    before = storage.objects(prefix)
    if killed == "endpoint":
        storage.do("kill")
        away = time.monotonic()
        until(lambda: time.monotonic() - away > 30, "half a minute has passed", 60)
        storage.do("gateway")
    else:
        for pid in servers(dstack_home.dstack):
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(storage.objects(prefix)) >= 1500, "the host goes on without a server", 120)
    assert cli("wait", killed, timeout=900).returncode == 0

    after, listed = storage.objects(prefix), manifest(cli, killed)
    assert len(after) == 1502
    again = [path for path, entry in before.items() if after[path]["LastModified"] != entry["LastModified"]]
    assert not again, "sent twice"
    for path in ["out/large", "out/1", "out/1500"]:
        assert storage.sha256(prefix + path) == listed[path]["sha256"]
    print(f"\n{killed} killed with {len(before)} of 1502 there: all there at the end, none sent twice")


def test_a_wrong_secret_is_refused(cli: Cli, dstack_home: Home, rgw: Rgw) -> None:
    wrong = {**KEYS, "AWS_SECRET_ACCESS_KEY": "wrong"}
    done = cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", rgw.url, env=wrong)

    assert done.returncode == 2
    assert "S3 refuses the server's credentials" in done.stderr
