"""Artifacts go from a real S3 server to a host completely, or there is an error."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.artifacts.s3.store import S3Store
from dstack.commands.artifacts.fetch_dependencies import gather
from dstack.errors import CommandError
from dstack.model.job.manifest import File
from tests.environment import needs
from tests.environment.proxy import Proxy
from tests.environment.s3 import BUCKET, S3
from tests.unit.artifacts.made import Index
from tests.unit.commands.hosts import Folder, busybox

NAMES = ["a b", "it's\nnew", "-rf", "d/ü\\", "[x]{y}?*", "empty", "x" * 250]


@pytest.fixture
def proxy(s3_server: S3) -> Iterator[Proxy]:
    proxy = Proxy(s3_server.port)
    try:
        yield proxy
    finally:
        proxy.close()
        s3_server.restore()


@pytest.fixture
def store(s3_server: S3, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return S3Store(f"s3://{BUCKET}/p", proxy.url, Index())


@pytest.fixture(params=["sh", "busybox"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """busybox has no curl."""
    if request.param == "sh":
        return Folder(tmp_path / "root")
    programs = Path(busybox(tmp_path / "programs"))
    (programs / "curl").symlink_to(shutil.which("curl") or needs.missing("curl is not installed"))
    return Folder(tmp_path / "root", (f"{programs}/sh",), str(programs))


def content(name: str) -> bytes:
    return name.encode() * (name != "empty")


def stored(store: S3Store, names: list[str], mode: int = 0o644) -> list[File]:
    for name in names:
        store.bucket.call("put_object", Key=store.objects("r", "w").key(name), Body=content(name))
    return [File(name, len(content(name)), mode, hashlib.sha256(content(name)).hexdigest()) for name in sorted(names)]


def fetch(host: Folder, store: S3Store, files: list[File]) -> Path:
    """Return the folder on the host that has them."""
    paths = [file.path for file in files if file.link is None]
    urls = dict(zip(paths, asyncio.run(store.urls("r", "w", paths)), strict=True))
    host.ask(gather(host.context, "j1", files, urls))
    return host.base / "jobs/j1/gathered"


def test_files_arrive_with_names_modes_and_links(host: Folder, store: S3Store, proxy: Proxy) -> None:
    files = [*stored(store, NAMES), *stored(store, ["closed"], 0o400), File("l", 0, 0o777, "", "d/ü\\")]
    proxy.passed.clear()

    top = fetch(host, store, files)

    assert {name: (top / name).read_bytes() for name in NAMES} == {name: content(name) for name in NAMES}
    assert (top / "closed").stat().st_mode & 0o777 == 0o400
    assert (top / "l").read_bytes() == content("d/ü\\")
    assert len([each for each in proxy.passed if each.method == "GET"]) == len(NAMES) + 1


def test_what_breaks_off_is_fetched_again(host: Folder, store: S3Store, proxy: Proxy) -> None:
    files = stored(store, ["x" * 250])
    cuts = [100, 10]
    proxy.cut = lambda request: cuts.pop() if request.method == "GET" and cuts else None

    assert (fetch(host, store, files) / ("x" * 250)).read_bytes() == content("x" * 250)
    assert not cuts


def test_what_never_arrives_whole_is_an_error(
    host: Folder, store: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstack.commands.artifacts.fetch_dependencies.TRIES", 1)
    files = stored(store, ["a" * 20, "b" * 20])
    proxy.cut = lambda request: 10 if request.method == "GET" and "b" in request.key.rpartition("/")[2] else None

    with pytest.raises(CommandError, match="with 10 bytes remaining"):
        fetch(host, store, files)
    assert sum(each.method == "GET" and each.key.endswith("a") for each in proxy.passed) == 1


def test_other_bytes_than_were_stored_are_refused(host: Folder, store: S3Store) -> None:
    files = stored(store, ["a", "b"])
    store.bucket.call("put_object", Key=store.objects("r", "w").key("b"), Body=b"c")

    with pytest.raises(CommandError, match="'b' differs from what was stored"):
        fetch(host, store, files)


def test_what_is_refused_is_an_error(host: Folder, store: S3Store, proxy: Proxy) -> None:
    files = stored(store, ["a"])
    proxy.refuse = lambda request: "AccessDenied" if request.method == "GET" else None

    with pytest.raises(CommandError, match="403"):
        fetch(host, store, files)
