"""A job can mount folders of a machine if its owner allows them, and no others."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import single
from tests.environment.account import Account
from tests.environment.sshd import Sshd

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def data(user: Account) -> Iterator[Path]:
    """A folder on the machine that belongs to the SSH user."""
    folder = user.home / "data"
    (folder / "sets" / "one").mkdir(parents=True)
    (folder / "sets" / "one" / "rows").write_text("many\n")
    (folder / "out").symlink_to("/etc")
    subprocess.run(["chown", "-R", user.name, folder], check=True)
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture
def owner(cli: Cli, sshd: Sshd, data: Path, docker: list[str]) -> Path:
    """A runner whose jobs may mount that folder."""
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    options = ["--identity", str(sshd.identity), "--fingerprint", sshd.fingerprint, "--allow-mount", f"{data}/"]
    refused = cli("runners", "add", address, "--name", "box", *options, "--allow-mount", "/")
    assert (refused.returncode, "can't be /" in refused.stderr) == (2, True)
    done = cli("runners", "add", address, "--name", "box", *options)
    assert done.returncode == 0, done.stderr
    assert str(data) in done.stdout
    return data


def test_a_job_sees_the_folders_that_it_mounts(cli: Cli, owner: Path, tmp_path: Path, busybox: str) -> None:
    mounts = f"mounts: ['{owner}/sets/$which:/data:ro', '{owner}:/all']"
    commands = ("cat /data/rows", "if touch /data/new; then exit 9; fi", "echo made > /all/made")
    folder = single(tmp_path / "p", busybox, *commands, more=mounts)
    (folder / ".dstack" / "configs.yaml").write_text("configs: {job: {which: one}}\n")

    done = cli("run", "job", cwd=folder)
    missing = cli("run", "job", "--which", "two", cwd=folder)

    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "many"), done.stderr
    assert (owner / "made").read_text() == "made\n"
    assert missing.returncode == 125
    assert f"this machine's {owner}/sets/two can't be mounted: it does not exist" in missing.stderr
    assert not (owner / "sets" / "two").exists()
    assert [each["allow_mounts"] for each in json.loads(cli("runners", "--json").stdout)] == [[str(owner)]]


def test_what_the_owner_does_not_allow_is_refused(cli: Cli, owner: Path, tmp_path: Path, busybox: str) -> None:
    def run(name: str, source: object) -> subprocess.CompletedProcess[str]:
        return cli("run", "job", cwd=single(tmp_path / name, busybox, "true", more=f"mounts: ['{source}:/data:ro']"))

    etc = run("etc", "/etc")
    link = run("link", owner / "out" / "ssl")

    assert cli("runners", "set", "box").returncode == 2
    changed = json.loads(cli("runners", "set", "box", "--allow-mount", "/srv", "--label", "lab", "--json").stdout)
    now = run("now", owner)

    assert (changed["allow_mounts"], changed["labels"]) == (["/srv"], ["lab"])
    assert (now.returncode, "the closest is box, which allows /srv" in now.stderr) == (2, True)
    assert etc.returncode == 2
    assert f"job can't run: no runner allows mounting /etc; the closest is box, which allows {owner}" in etc.stderr
    assert link.returncode == 125
    real = os.path.realpath("/etc/ssl")
    leads = f"it leads to {real}, which is not in a folder that jobs may mount"
    assert f"{owner}/out/ssl can't be mounted: {leads}" in link.stderr
