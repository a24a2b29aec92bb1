"""Uploads to Ceph RGW: real multipart uploads, large and many files, outages.

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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.e2e.project import single
from tests.environment import needs
from tests.environment.product import Home, servers
from tests.environment.proxy import Proxy
from tests.environment.sshd import free_port
from tests.environment.waiting import until

pytestmark = pytest.mark.rgw

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = Path(__file__).parent / "rgw"
KEYS = {"AWS_ACCESS_KEY_ID": "OracleAccess", "AWS_SECRET_ACCESS_KEY": "OracleSecretKey", "AWS_CONFIG_FILE": "/dev/null"}
BUCKET = "show"
OTHERS = {**KEYS, "AWS_ACCESS_KEY_ID": "OthersAccess", "AWS_SECRET_ACCESS_KEY": "OthersSecretKey"}
"""Somebody else's, who has a bucket of his own."""
MIB = 1 << 20
READERS = 8


class Rgw:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def do(self, command: str) -> None:
        words = [SCRIPT, command, self.folder, str(self.port)]
        subprocess.run(words, check=True, timeout=180, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    @cached_property
    def client(self) -> Any:
        return self.client_of(KEYS)

    def client_of(self, keys: Mapping[str, str]) -> Any:
        session = boto3.session.Session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])
        pool = Config(max_pool_connections=READERS)
        return session.client("s3", endpoint_url=self.url, region_name="us-east-1", config=pool)

    def objects(self, prefix: str) -> dict[str, Any]:
        """Return the objects by the part of their key after the prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {entry["Key"].removeprefix(prefix): entry for page in pages for entry in page.get("Contents", ())}

    def sha256(self, key: str) -> str:
        found = hashlib.sha256()
        for block in self.client.get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(MIB):
            found.update(block)
        return found.hexdigest()

    def differing(self, prefix: str, listed: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the files whose object has a different sha256 than the run's list."""
        paths = list(listed)
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda path: self.sha256(prefix + path), paths)
            return [path for path, digest in zip(paths, found, strict=True) if digest != listed[path]["sha256"]]


@pytest.fixture(scope="module")
def rgw() -> Iterator[Rgw]:
    if not shutil.which("radosgw"):
        needs.missing(f"radosgw is not installed; install it: {SCRIPT} install")
    server = Rgw(Path(tempfile.mkdtemp(prefix="rgw-", dir="/tmp")))
    server.do("start")
    try:
        server.client.create_bucket(Bucket=BUCKET)
        server.client_of(OTHERS).create_bucket(Bucket="theirs")
        yield server
    finally:
        server.do("stop")
        shutil.rmtree(server.folder)


@pytest.fixture
def keys(dstack_home: Home) -> None:
    """Give the server the keys when it starts."""
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


@pytest.fixture
def counted(rgw: Rgw) -> Iterator[Proxy]:
    """The gateway behind a proxy that counts."""
    proxy = Proxy(rgw.port)
    try:
        yield proxy
    finally:
        proxy.close()


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
    up = time.monotonic() - begun

    stored, listed = storage.objects("x/large/job/"), manifest(cli, "large")
    assert len(stored) == 5002
    assert len(listed) == 5001
    assert stored["out/sparse"]["Size"] == 6 * 1024**3
    assert stored["out/sparse"]["ETag"].endswith('-96"')
    assert storage.differing("x/large/job/", listed) == []

    begun = time.monotonic()
    done = cli("artifacts", "download", "large", "-o", tmp_path / "d", timeout=3000)
    down = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    top = tmp_path / "d/job/out"
    assert (top / "sparse").stat().st_size == 6 * 1024**3
    assert [n for n in range(1, 5001) if (top / f"many/{n}").read_text() != f"{n} of many\n"] == []
    print(f"\n6 GB and 5000 files: hashed, sent and listed in {up:.0f} s; downloaded and verified in {down:.0f} s")


NOISE = """
mkdir out
n=0; while [ $n -lt 1500 ]; do n=$((n+1)); echo "$DSTACK_RUN_NAME $n" > out/$n; done
dd if=/dev/urandom of=out/large bs=1048576 count=1500 2> /dev/null
"""
PIECES = 1500 + 24
"""The large file travels in parts of 64 MiB."""


@pytest.mark.parametrize("killed", ["endpoint", "server"])
def test_something_is_away_for_30_seconds(
    cli: Cli, dstack_home: Home, storage: Rgw, counted: Proxy, tmp_path: Path, busybox: str, killed: str
) -> None:
    done = cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", counted.url)
    assert done.returncode == 0, done.stderr
    submit(cli, single(tmp_path / "p", busybox, NOISE, more="artifacts: [out]"), killed)
    prefix = f"x/{killed}/job/"

    def taken() -> Counter[tuple[str, str]]:
        """Return how often S3 acknowledged each piece."""
        return Counter({piece: count for piece, count in counted.stored().items() if f"/{prefix}out/" in piece[0]})

    until(lambda: len(taken()) > 300 and any(part for _, part in taken()), "some files and parts have arrived", 300)
    if killed == "endpoint":
        storage.do("kill")
    else:
        for pid in servers(dstack_home.dstack):
            os.kill(pid, signal.SIGKILL)
    before, away = len(taken()), time.monotonic()
    assert before < PIECES
    until(lambda: time.monotonic() - away > 30, "half a minute has passed", 60)
    meanwhile = len(taken())
    if killed == "endpoint":
        storage.do("gateway")
    else:
        assert meanwhile > before, "the host goes on without a server"
        assert not servers(dstack_home.dstack)
    assert cli("wait", killed, timeout=900).returncode == 0

    assert len(storage.objects(prefix)) == 1502
    listed, pieces = manifest(cli, killed), taken()
    assert storage.differing(prefix, listed) == []
    assert len(pieces) == PIECES
    assert [piece for piece, count in pieces.items() if count > 1] == []
    puts = [each for each in counted.passed if each.method == "PUT" and each.status == 200]
    sent = sum(each.sent for each in puts if f"/{prefix}out/" in each.key)
    assert sent == sum(entry["size"] for entry in listed.values())
    print(f"\n{killed} away for 30 s: {before} of {PIECES} pieces were there, {meanwhile} at its end; all, each once")


@pytest.mark.parametrize(
    ("keys", "bucket", "said"),
    [
        ({**KEYS, "AWS_SECRET_ACCESS_KEY": "wrong"}, BUCKET, "S3 refuses the server's credentials"),
        ({**KEYS, "AWS_ACCESS_KEY_ID": "nobody"}, BUCKET, "S3 refuses the server's credentials"),
        (KEYS, "theirs", "the server's credentials may not use the bucket 'theirs'"),
        (KEYS, "missing", "there is no bucket 'missing'"),
    ],
)
def test_what_can_not_be_used_is_refused(cli: Cli, rgw: Rgw, keys: dict[str, str], bucket: str, said: str) -> None:
    done = cli("config", "--storage", f"s3://{bucket}/x", "--endpoint-url", rgw.url, env=keys)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
