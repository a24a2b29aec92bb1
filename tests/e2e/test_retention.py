"""What is removed with a run, and what stays."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from tests.e2e.project import project, single
from tests.environment.account import Account
from tests.environment.product import Home
from tests.environment.registry import Registry
from tests.environment.s3 import ACCESS, BUCKET, S3, SECRET
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

WORKFLOWS = """
workflows:
  - name: base
    image: {image}
    commands: [echo base | tee made]
    artifacts: [made]
    depends-on: {{repo: {{include: [.gitignore]}}}}
  - name: top
    image: {image}
    commands: [cat made | tee $DSTACK_RUN_NAME, echo it > own]
    artifacts: [own]
    depends-on: {{workflows: [base]}}
"""


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    return project(tmp_path / "p", WORKFLOWS.format(image=busybox))


@pytest.fixture(params=["folder", "s3"])
def objects(
    request: pytest.FixtureRequest, cli: Cli, dstack_home: Home, s3: S3, runner: str, tmp_path: Path
) -> Callable[[], set[str]]:
    """Return the stored artifacts as RUN/WORKFLOW/PATH."""
    top = tmp_path / "storage"
    if request.param == "s3":
        assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
        return lambda: {key.removeprefix("x/") for key in s3.objects}
    assert cli("config", "--storage", top).returncode == 0
    return lambda: {
        str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and ".content" not in path.parts
    }


def names(cli: Cli) -> list[str]:
    return [run["name"] for run in json.loads(cli("runs", "--json").stdout)]


def test_what_others_use_stays_until_they_go(cli: Cli, objects: Callable[[], set[str]], folder: Path) -> None:
    for name in ("first", "second"):
        assert cli("run", "top", "--name", name, cwd=folder).returncode == 0
    files = {"manifest.json", "own"}
    assert objects() == {f"{run}/top/{f}" for run in ("first", "second") for f in files} | {
        "first/base/made",
        "first/base/manifest.json",
    }

    deleted = cli("runs", "delete", "first", "--json")

    assert deleted.returncode == 0, deleted.stderr
    assert json.loads(deleted.stdout)[0]["kept"] == ["base"]
    assert names(cli) == ["second"]
    assert cli("runs", "first").returncode == 2
    assert objects() == {"second/top/own", "second/top/manifest.json", "first/base/made", "first/base/manifest.json"}
    assert "base | base\n" in cli("logs", "second").stdout
    assert cli("run", "top", "--name", "third", cwd=folder).returncode == 0
    base = json.loads(cli("runs", "third", "--json").stdout)["jobs"][0]
    assert base["cache"] == {"hit": True, "why": "nothing changed since second"}

    assert cli("runs", "delete", "second", "third").returncode == 0
    until(lambda: not objects(), "nothing is left, when the machine was cleaned")
    assert names(cli) == []


def test_prune(cli: Cli, objects: Callable[[], set[str]], folder: Path, dstack_home: Home) -> None:
    for name in ("one", "two", "three", "four"):
        assert cli("run", "base", "--name", name, cwd=folder).returncode == 0
    assert cli("tag", "one", "keep").returncode == 0
    for options in ((), ("--dry-run",)):
        without = cli("prune", *options)
        assert (without.returncode, names(cli)) == (0, ["four", "three", "two", "one"])
        assert "all runs are kept; to remove old ones, add --keep-last N, --older-than 30d or both" in without.stderr
    assert cli("prune", "--older-than", "soon").returncode == 2
    socket = str(dstack_home.dstack / "server" / "socket")
    asked = ["curl", "-fsS", "--unix-socket", socket, "-d", "{}", "http://localhost/v1/prune"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "[]", "no rule lets nothing go"

    shown = cli("prune", "--keep-last", "1", "--dry-run", "--json")
    assert [each["run"] for each in json.loads(shown.stdout)] == ["two", "three"]
    assert json.loads(cli("prune", "--keep-last", "1", "--older-than", "1h", "--json").stdout) == []
    assert names(cli) == ["four", "three", "two", "one"]

    assert cli("prune", "--keep-last", "1").returncode == 0
    assert names(cli) == ["four", "one"]
    assert {path.split("/")[0] for path in objects()} == {"one", "four"}
    refused = cli("runs", "delete", "four", "one")
    assert refused.returncode == 2
    assert "one has the tag ':keep'" in refused.stderr
    assert names(cli) == ["four", "one"]


def test_what_only_those_use_that_go_is_told_as_what_goes(cli: Cli, runner: str, folder: Path) -> None:
    for name in ("first", "second"):
        assert cli("run", "top", "--name", name, cwd=folder).returncode == 0
    rule = ("prune", "--keep-last", "0", "-y", "--json")

    shown, done = (json.loads(cli(*rule, *options).stdout) for options in (["--dry-run"], []))

    assert shown == done
    assert [each["kept"] for each in done if "run" in each] == [[], []]
    assert [(each["what"], each["runner"]) for each in done if "what" in each] == [("code", "box")]


def test_what_another_storage_has_goes_too_or_is_named(
    cli: Cli, dstack_home: Home, s3: S3, runner: str, folder: Path, tmp_path: Path
) -> None:
    url, first, second = f"s3://{BUCKET}/x", tmp_path / "first", tmp_path / "second"
    for name, options in (("one", [first]), ("two", [url, "--endpoint-url", s3.url]), ("three", [second])):
        assert cli("config", "--storage", *options).returncode == 0
        assert cli("run", "base", "--name", name, cwd=folder).returncode == 0
    assert (first / "one/base/made").exists()
    assert "x/two/base/made" in s3.objects

    done = cli("runs", "delete", "one")
    assert (done.returncode, "stays" in done.stderr) == (0, False), done.stderr
    assert not [path for path in first.rglob("*") if path.is_file()]

    s3.kill()
    gone = cli("prune", "--keep-last", "1", "-y")
    assert gone.returncode == 0, gone.stderr
    assert f"warning: two/base could not be removed from {s3.url} {url}: S3 does not answer" in gone.stderr
    assert "remove it there by hand" in gone.stderr
    assert names(cli) == ["three"]
    assert cli("config", "--storage", first).returncode == 0
    shutil.rmtree(second)
    told = json.loads(cli("runs", "delete", "three", "--json").stdout)
    assert told[0]["stays"] == [f"three/base could not be removed from {second}: the folder does not exist"]


def rest(cli: Cli, *options: str) -> list[tuple[str, str, str | None]]:
    """Return what `dstack prune` reports besides runs: what, which and where."""
    done = cli("prune", *options, "--json")
    assert done.returncode == 0, done.stderr
    return [(each["what"], each["name"], each["runner"]) for each in json.loads(done.stdout) if "what" in each]


def test_the_last_run_takes_its_code_and_its_secrets_with_it(
    cli: Cli, dstack_home: Home, runner: str, user: Account, tmp_path: Path, busybox: str
) -> None:
    assert cli("secrets", "set", "TOKEN", stdin="hunter22\n").returncode == 0
    folder = single(tmp_path / "p", busybox, "echo it", more="secrets: [TOKEN]")
    other = single(tmp_path / "other", busybox, "echo other")
    assert cli("run", "job", "--name", "one", cwd=folder).returncode == 0
    assert cli("run", "job", "--name", "other", cwd=other).returncode == 0
    state = dstack_home.dstack / "server"
    mirrors = [state / "mirrors", *(user.home / ".dstack-host").glob("*/*/mirrors")]
    assert [len(list(each.glob("*.git"))) for each in mirrors] == [2, 2]
    with sqlite3.connect(state / "state.db") as database:
        asked = "SELECT json_extract(data, '$.snapshot.repo') FROM runs WHERE name = 'one'"
        (repo,) = database.execute(asked).fetchone()
        assert database.execute("SELECT count(*) FROM given").fetchone() == (1,)
    assert cli("runs", "delete", "one").returncode == 0
    until(lambda: gone(state, "one"), "the run is gone", 60)
    for ref in (state / "mirrors" / f"{repo}.git/refs/dstack").rglob("*"):
        os.utime(ref, (0, 0))  # nobody sends code to it now

    both = {("code", repo, "box"), ("code", repo, None)}  # the server's own may have gone with the run
    assert ("code", repo, "box") in rest(cli, "--keep-last", "5", "--dry-run")
    assert len(list(mirrors[1].glob("*.git"))) == 2
    found = set(rest(cli, "--keep-last", "5"))
    assert ("code", repo, "box") in found
    assert found <= both
    assert [len(list(each.glob("*.git"))) for each in mirrors] == [1, 1]
    assert rest(cli, "--keep-last", "5") == []
    with sqlite3.connect(state / "state.db") as database:
        assert database.execute("SELECT count(*) FROM given").fetchone() == (0,)
    assert cli("run", "job", cwd=folder).returncode == 0
    assert cli("run", "job", cwd=other).returncode == 0


def gone(state: Path, run: str) -> bool:
    with sqlite3.connect(state / "state.db") as database:
        return not database.execute("SELECT 1 FROM runs WHERE name = ?", (run,)).fetchone()


@pytest.fixture
def pulled(docker: list[str], busybox: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """An image that only a registry has, and one that the machine has already."""
    registry = Registry(tmp_path / "registry")
    missing, there = f"{registry.address}/box:missing", f"{registry.address}/box:there"
    made = f"FROM {busybox}\nLABEL made={registry.port}".encode()
    subprocess.run([*docker, "build", "-q", "-t", missing, "-"], input=made, check=True, capture_output=True)
    for words in (["tag", busybox, there], ["push", "-q", missing], ["rmi", missing]):
        subprocess.run([*docker, *words], check=True, capture_output=True)
    yield missing, there
    registry.close()
    subprocess.run([*docker, "rmi", "-f", missing, there], capture_output=True, check=False)


def test_images_that_dstack_pulled_go_when_asked_for(
    cli: Cli, runner: str, docker: list[str], pulled: tuple[str, str], tmp_path: Path
) -> None:
    for name, image in zip(("one", "two"), pulled, strict=True):
        done = cli("run", "job", "--name", name, cwd=single(tmp_path / name, image, "echo it"))
        assert done.returncode == 0, done.stderr
    image = ("image", pulled[0], "box")

    assert rest(cli, "--images") == []
    until(lambda: image in rest(cli, "--keep-last", "0", "--dry-run", "--images"), "no container has it", 60)
    assert image not in rest(cli, "--keep-last", "0", "--dry-run")
    assert cli("runs", "delete", "one", "two").returncode == 0
    assert rest(cli, "--images", "--keep-last", "0").count(image) == 1

    shown = [*docker, "images", "--format", "{{.Repository}}:{{.Tag}}"]
    left = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
    assert pulled[0] not in left
    assert pulled[1] in left
    assert rest(cli, "--images") == []


def test_what_a_broken_upload_left_goes(
    cli: Cli, dstack_home: Home, s3: S3, runner: str, tmp_path: Path, busybox: str
) -> None:
    assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
    folder = single(tmp_path / "p", busybox, "echo it > made; exit 3", more="artifacts: [made]")
    assert cli("run", "job", "--name", "kept", cwd=folder).returncode == 3
    empty = single(tmp_path / "q", busybox, "exit 3")
    assert cli("run", "job", "--name", "broken", cwd=empty).returncode == 3
    client = boto3.session.Session(ACCESS, SECRET).client("s3", endpoint_url=s3.url, region_name="us-east-1")
    client.delete_object(Bucket=BUCKET, Key="x/broken/job/manifest.json")
    for key in ("x/broken/job/half", "x/somebody/else/half"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"12345")
    begun = client.create_multipart_upload(Bucket=BUCKET, Key="x/broken/job/large")["UploadId"]
    part = {"Bucket": BUCKET, "Key": "x/broken/job/large", "UploadId": begun, "PartNumber": 1}
    client.upload_part(**part, Body=b"123")

    shown = json.loads(cli("prune", "--keep-last", "9", "--dry-run", "--json").stdout)
    assert shown == [{"what": "objects", "name": "broken/job", "bytes": 8, "runner": None}]
    assert rest(cli, "--keep-last", "9") == [("objects", "broken/job", None)]

    with pytest.raises(client.exceptions.ClientError, match="NoSuchUpload"):
        client.upload_part(**part, Body=b"123")
    assert set(s3.objects) == {"x/kept/job/made", "x/kept/job/manifest.json", "x/somebody/else/half"}
    assert rest(cli, "--keep-last", "9") == []
