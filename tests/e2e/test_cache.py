"""Why a job ran again or not, and that an incomplete result is never used."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e.project import project
from tests.environment.product import Home
from tests.environment.s3 import ACCESS, BUCKET, S3, SECRET

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

WORKFLOWS = """
workflows:
  - name: download-model
    image: {image}
    commands: [echo "$model" > model; mkdir d; echo deep > d/e; ln -s e d/l]
    artifacts: [model, d]
    depends-on: {{repo: {{include: [.gitignore]}}}}
  - name: encode
    image: {image}
    commands: [sh encode.sh > encoded]
    artifacts: [encoded]
    depends-on: {{repo: {{include: [encode.sh]}}, config: [], workflows: [download-model]}}
  - name: train
    image: {image}
    commands: [cat encoded]
    depends-on: {{config: [], workflows: [encode]}}
"""
CONFIGS = "configs: {global: {model: 124M}}"


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    made = project(tmp_path / "p", WORKFLOWS.format(image=busybox), CONFIGS)
    (made / "encode.sh").write_text("tr 0-9 a-j < model")
    return made


def whys(cli: Cli, *words: str, cwd: Path) -> list[tuple[bool, str]]:
    """Return for each job of a run or a plan whether it came from the cache, and why."""
    done = cli(*words, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["jobs"]
    return [(job["cache"]["hit"], job["cache"]["why"]) for job in told]


def test_why(cli: Cli, runner: str, folder: Path) -> None:
    first = cli("run", "train", "--name", "first", cwd=folder)
    assert "bce" in first.stdout, first.stderr
    planned = ("run", "train", "--dry-run")
    assert whys(cli, *planned, cwd=folder) == [
        (True, "nothing changed since first"),
        (False, "requested by name, so it always runs"),
    ]
    named = "requested by name, so it always runs (dependency encode ran again)"
    assert whys(cli, *planned, "--model", "117M", cwd=folder) == [
        (False, "variable model: 124M -> 117M"),
        (False, "dependency download-model ran again"),
        (False, named),
    ]
    shown = cli(*planned, "--model", "117M", cwd=folder).stdout
    assert "variable model: 124M -> 117M" in shown
    assert "dependency download-model ran again" in shown

    (folder / "encode.sh").write_text("tr 0-9 A-J < model")
    assert whys(cli, *planned, cwd=folder)[:2] == [(True, "nothing changed since first"), (False, "encode.sh changed")]
    second = cli("run", "train", "--name", "second", cwd=folder)
    assert "BCE" in second.stdout, second.stderr
    told = cli("runs", "second").stdout
    assert "cache: encode.sh changed" in told
    assert "cache: nothing changed since first" in told
    assert whys(cli, *planned, "--no-cache", cwd=folder)[:2] == [(False, "--no-cache"), (False, "--no-cache")]


@pytest.fixture(params=["folder", "s3"])
def spoil(
    request: pytest.FixtureRequest, cli: Cli, dstack_home: Home, s3: S3, runner: str, tmp_path: Path
) -> Callable[[str, bytes | None], None]:
    """Overwrites what is stored as RUN/WORKFLOW/PATH, or removes it."""
    if request.param == "folder":
        assert cli("config", "--storage", tmp_path / "storage").returncode == 0

        def on_disk(path: str, content: bytes | None) -> None:
            stored = tmp_path / "storage" / path
            stored.unlink()
            if content is not None:
                stored.write_bytes(content)

        return on_disk
    assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
    client = boto3.session.Session(ACCESS, SECRET).client("s3", endpoint_url=s3.url, region_name="us-east-1")

    def in_bucket(path: str, content: bytes | None) -> None:
        if content is None:
            client.delete_object(Bucket=BUCKET, Key=f"x/{path}")
        else:
            client.put_object(Bucket=BUCKET, Key=f"x/{path}", Body=content)

    return in_bucket


def test_a_result_that_is_not_whole_is_a_miss_that_says_why(
    cli: Cli, spoil: Callable[[str, bytes | None], None], folder: Path
) -> None:
    run, said = "r0", "it has not run before"
    for number, (path, content, expected) in enumerate(
        [
            ("model", b"999M\n", "the result of {run} is damaged: 'model' no longer matches its checksum"),
            ("d/e", None, "the result of {run} is damaged: 'd/e' is gone"),
            ("manifest.json", b'{"job": ', "the result of {run} is no longer stored"),
        ],
        1,
    ):
        done = cli("run", "encode", "--name", run, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert f"cache: {said}" in cli("runs", run).stdout
        spoil(f"{run}/download-model/{path}", content)
        run, said = f"r{number}", expected.format(run=run)

    assert cli("run", "encode", "--name", run, cwd=folder).returncode == 0
    assert cli("artifacts", "download", run, "-o", folder / "o").returncode == 0
    assert (folder / "o/encode/encoded").read_text() == "bceM\n"
    assert f"cache: {said}" in cli("runs", run).stdout
