"""Object storage that refuses, breaks off or lets URLs expire, as seen from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.project import single
from tests.environment import needs
from tests.environment.forward import forward
from tests.environment.product import Home, program
from tests.environment.proxy import Passed, Proxy
from tests.environment.s3 import BUCKET, S3
from tests.environment.waiting import until
from tests.unit.cli.terminal import type_into

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

LARGE = 20 << 20
MADE = f"""
mkdir -p out/many
n=0; while [ $n -lt 60 ]; do n=$((n+1)); echo "$n of many" > out/many/$n; done
head -c {LARGE} /dev/urandom > out/large
chmod 750 out/large
ln -s large out/latest
"""
KEY = f"{BUCKET}/x/one/job/out/large"


@pytest.fixture
def storage(cli: Cli, s3: S3, proxy: Proxy, runner: str) -> Proxy:
    done = cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", proxy.url)
    assert done.returncode == 0, done.stderr
    return proxy


@pytest.fixture
def made(cli: Cli, storage: Proxy, s3: S3, tmp_path: Path, busybox: str) -> bytes:
    """Store the artifacts of a run `one`; return the bytes of its large one. Requests until now are forgotten."""
    done = cli("run", "job", "--name", "one", cwd=single(tmp_path / "p", busybox, MADE, more="artifacts: [out]"))
    assert done.returncode == 0, done.stderr
    puts = [each for each in storage.passed if each.method == "PUT" and "/out/" in each.key]
    stored = [each for each in puts if each.status == 200]
    assert len(stored) == 61
    # What was not answered by 200 is sent again, over another connection.
    assert len({each.connection for each in puts}) <= 8 + len(puts) - len(stored)
    storage.passed.clear()
    return s3.objects["x/one/job/out/large"]


def of_people(request: Passed) -> bool:
    """Whether the request comes from a command line, not from the server or a runner."""
    return request.agent.startswith("dstack/")


def test_a_download_comes_straight_from_the_bucket(
    cli: Cli, dstack_home: Home, storage: Proxy, made: bytes, tmp_path: Path
) -> None:
    done = cli("artifacts", "download", "one", "-o", tmp_path / "d")

    assert done.returncode == 0, done.stderr
    top = tmp_path / "d/job/out"
    assert (top / "large").read_bytes() == made
    assert (top / "large").stat().st_mode & 0o777 == 0o750
    assert os.readlink(top / "latest") == "large"
    assert len(list((top / "many").iterdir())) == 60
    fetched = Counter(each.key for each in storage.passed if each.method == "GET" and "x/one/job/out" in each.key)
    assert set(fetched.values()) == {1}
    assert len(fetched) == 61
    assert all(of_people(each) for each in storage.passed if each.key in fetched)
    assert len({each.connection for each in storage.passed if of_people(each)}) <= 8

    shutil.rmtree(tmp_path / "d")
    words = [str(program()), "artifacts", "download", "one", "-o", str(tmp_path / "d")]
    shown, code = type_into(words, [], cwd=tmp_path, environment=dstack_home.environment)
    assert code == 0
    assert "downloading" in shown
    assert "/21.0 MB" in shown
    assert (top / "large").read_bytes() == made


def test_a_download_goes_through_the_proxy_of_the_environment(
    cli: Cli, storage: Proxy, made: bytes, tmp_path: Path
) -> None:
    with forward() as way:
        environment = {"http_proxy": f"127.0.0.1:{way.port}"}
        done = cli("artifacts", "download", "one", "-o", tmp_path / "d", env=environment)
        asked = until(lambda: len(way.asked) == 61 and list(way.asked), "each file was asked for")
        direct = cli("artifacts", "download", "one", "-o", tmp_path / "e", env={**environment, "NO_PROXY": "127.0.0.1"})
        assert way.asked == asked
    gone = cli("artifacts", "download", "one", "out/large", "-o", tmp_path / "f", env=environment)

    assert done.returncode == direct.returncode == gone.returncode == 0, done.stderr
    assert all(line.startswith(f"GET {storage.url}/{BUCKET}/x/one/job/out/") for line in asked)
    assert f"through the proxy http://127.0.0.1:{way.port}: " in gone.stderr
    assert "downloading through the server instead" in gone.stderr
    for folder in ("d", "e", "f"):
        assert (tmp_path / folder / "job/out/large").read_bytes() == made


def test_a_download_that_breaks_off_goes_on(cli: Cli, storage: Proxy, made: bytes, tmp_path: Path) -> None:
    cuts = {KEY: [LARGE // 4, LARGE // 4]}
    storage.cut = lambda request: cuts[request.key].pop() if cuts.get(request.key) else None

    done = cli("artifacts", "download", "one", "-o", tmp_path / "d")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d/job/out/large").read_bytes() == made
    got = [each for each in storage.passed if each.key == KEY and each.method == "GET"]
    assert [each.range for each in got] == [None, f"bytes={LARGE // 4}-", f"bytes={LARGE // 2}-"]
    assert sum(each.received for each in got) == LARGE


def test_the_next_download_completes_one_that_failed(cli: Cli, storage: Proxy, made: bytes, tmp_path: Path) -> None:
    storage.cut = lambda request: LARGE // 2 if request.key == KEY else None
    storage.refuse = lambda request: "AccessDenied" if request.range and request.key == KEY else None
    failed = cli("artifacts", "download", "one", "-o", tmp_path / "d")
    assert failed.returncode == 125
    assert "AccessDenied" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "d/job/out/large").exists()
    storage.cut = storage.refuse = lambda request: None
    storage.passed.clear()

    done = cli("artifacts", "download", "one", "-o", tmp_path / "d")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d/job/out/large").read_bytes() == made
    assert sum(each.received for each in storage.passed if each.key == KEY) == LARGE // 2
    assert not list((tmp_path / "d").rglob("*.part"))


def fetched(cli: Cli, folder: Path) -> bytes:
    """Download into a fresh folder; return the large file."""
    done = cli("artifacts", "download", "one", "out/large", "-o", folder)
    assert done.returncode == 0, done.stderr
    return (folder / "job/out/large").read_bytes()


def test_what_the_bucket_does_not_give(
    cli: Cli, dstack_home: Home, storage: Proxy, s3: S3, made: bytes, tmp_path: Path
) -> None:
    # A URL that expired: another one is asked for.
    refusals = ["AccessDenied"]
    storage.refuse = lambda request: refusals.pop() if of_people(request) and refusals else None
    assert fetched(cli, tmp_path / "anew") == made
    assert [of_people(each) for each in storage.passed if each.key == KEY] == [True, True]

    # Nothing for people at all: the server reads it for them.
    storage.refuse = lambda request: "AccessDenied" if of_people(request) else None
    assert fetched(cli, tmp_path / "refused") == made
    whole = cli("artifacts", "download", "one", "-o", tmp_path / "all")
    assert whole.returncode == 0, whole.stderr
    assert whole.stderr.count("refused the download with status 403") == 1

    # Other bytes than were stored.
    storage.refuse = lambda request: None
    (s3.folder / "objects" / KEY).write_bytes(b"?" * LARGE)
    damaged = cli("artifacts", "download", "one", "out/large", "-o", tmp_path / "damaged")
    assert damaged.returncode == 125
    assert "sha256 differs" in damaged.stderr
    assert not list((tmp_path / "damaged").rglob("large"))
    (s3.folder / "objects" / KEY).write_bytes(made)

    # A network from which the bucket can't be reached.
    needs.root("a network namespace of its own")
    storage.passed.clear()
    alone = subprocess.run(
        ["unshare", "--net", program(), "artifacts", "download", "one", "-o", tmp_path / "alone"],
        env=dstack_home.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr
    assert alone.stderr.count("can't be reached from this machine") == 1
    assert (tmp_path / "alone/job/out/large").read_bytes() == made
    assert not [each for each in storage.passed if of_people(each)]


def status(url: str) -> str:
    """Return the status that a request without credentials gets."""
    words = ["curl", "-qs", "--globoff", "-o", os.devnull, "-w", "%{http_code}", url]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def short(dstack_home: Home) -> float:
    """Make a server that starts now give URLs that expire after so many seconds; return them."""
    dstack_home.environment["DSTACK_URL_LIFETIME"] = "3s"
    return 3.0


def test_a_url_for_anybody_and_for_a_while(short: float, cli: Cli, made: bytes, tmp_path: Path) -> None:
    shown = json.loads(cli("artifacts", "url", "one", "out/many/7", "--json").stdout)
    read = subprocess.run(["curl", "-qsS", "--globoff", shown["url"]], capture_output=True, text=True, check=True)
    assert read.stdout == "7 of many\n"
    assert shown["expires_at"].endswith("Z")
    until(lambda: status(shown["url"]) in ("400", "403"), "the URL expires", 30)
    plain = cli("artifacts", "url", "one", "job/out/many/8")
    assert status(plain.stdout.strip()) == "200"

    for path, said in (
        ("out/many", "is not a single file"),
        ("out/latest", "is not a single file"),
        ("out/man", "did you mean"),
    ):
        refused = cli("artifacts", "url", "one", path)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_a_folder_gives_no_urls(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, "echo it > made", more="artifacts: [made]")
    assert cli("run", "job", "--name", "one", cwd=folder).returncode == 0

    refused = cli("artifacts", "url", "one", "made")

    assert refused.returncode == 2
    assert "; only S3 storage has URLs" in refused.stderr
    assert "dstack artifacts download" in refused.stderr
    assert refused.stdout == ""


def test_urls_that_expire_during_an_upload_are_renewed(
    short: float, cli: Cli, storage: Proxy, s3: S3, tmp_path: Path, busybox: str
) -> None:
    begun: list[float] = []

    def slow(request: Passed) -> str | None:
        """Requests for the second half of the files are not answered before the first URLs have expired."""
        if request.method == "PUT" and "/out/" in request.key:
            begun.append(time.monotonic())
            if len(begun) > 60:
                until(lambda: time.monotonic() - begun[0] > short + 2, "the URLs expire")
        return None

    storage.refuse = slow
    commands = "mkdir out; n=0; while [ $n -lt 120 ]; do n=$((n+1)); echo $n > out/$n; done"
    done = cli("run", "job", "--name", "one", cwd=single(tmp_path / "p", busybox, commands, more="artifacts: [out]"))

    assert done.returncode == 0, done.stderr
    assert sum(each.method == "PUT" and each.status in (400, 403) for each in storage.passed) > 0
    assert set(storage.stored().values()) == {1}
    assert s3.objects["x/one/job/out/120"] == b"120\n"
    assert len(json.loads(s3.objects["x/one/job/manifest.json"])["files"]) == 120


@pytest.mark.parametrize("method", [None, "PUT", "DELETE"])
def test_a_bucket_that_forbids_is_refused(cli: Cli, s3: S3, proxy: Proxy, method: str | None) -> None:
    proxy.refuse = lambda request: "AccessDenied" if method in (None, request.method) else None

    done = cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", proxy.url)

    assert done.returncode == 2
    assert f"the server's credentials may not use the bucket '{BUCKET}' at {proxy.url}: AccessDenied" in done.stderr
    assert "allow s3:PutObject" in done.stderr
    assert "Traceback" not in done.stderr
    assert not json.loads(cli("config", "--json").stdout)["storage"].startswith("s3:")


def test_an_endpoint_that_is_not_there_is_refused(cli: Cli, s3: S3, proxy: Proxy) -> None:
    proxy.close()

    done = cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", proxy.url)

    assert done.returncode == 2
    assert "S3 does not answer" in done.stderr
    assert proxy.url in done.stderr
    assert "Traceback" not in done.stderr
    assert not json.loads(cli("config", "--json").stdout)["storage"].startswith("s3:")
