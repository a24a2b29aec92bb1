"""A job that fills its machine's disk to the last block, as a container's root can."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli
from tests.e2e.project import single
from tests.environment import needs
from tests.environment.account import Account
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

FILLS = """
echo result > out
head -c 3000000 /dev/urandom > large
head -c 200000000 /dev/zero > filler || :
i=0
while mkdir d$i 2> /dev/null; do i=$((i+1)); done
echo x >> filler || :
exit 7
"""


def job_of(cli: Cli, run: str) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)["jobs"][0]
    return job


@pytest.fixture
def small_disk(user: Account) -> Iterator[Path]:
    """An ext4 of 128 MB, with the reserve that only root may use, for a folder of the machine's user."""
    needs.root("a loop device")
    folder = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    folder.chmod(0o755)
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(128 * 1000**2)
    subprocess.run(["mkfs.ext4", "-q", "-m", "5", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, disk], capture_output=True, text=True)
    if mounted.returncode:
        needs.missing(f"a loop device can't be mounted here: {mounted.stderr.strip()}")
    shutil.chown(disk, user.uid, user.uid)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
        shutil.rmtree(folder)


@pytest.fixture
def full(cli: Cli, dstack_home: object, sshd: Sshd, user: Account, small_disk: Path, busybox: str) -> str:
    there = [f"{sshd.user}@{sshd.host}:{sshd.port}", "--identity", str(sshd.identity), "--name", "full"]
    added = cli("runners", "add", *there, "--root", str(small_disk / "root"), "--fingerprint", sshd.fingerprint)
    assert added.returncode == 0, added.stderr
    return "full"


def test_its_artifacts_are_collected_without_space(cli: Cli, full: str, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, FILLS, more="artifacts: [out, large]")
    assert cli("run", "job", "--name", "r", "-d", cwd=folder).returncode == 0

    ended = cli("wait", "r", timeout=90)

    job = job_of(cli, "r")
    assert (job["status"], job["reason_code"]) == ("failed", "disk-full"), job
    assert ended.returncode == job["exit_code"] != 0
    listed = json.loads(cli("artifacts", "list", "r", "--json").stdout)
    assert [(each["path"], each["size"]) for each in listed] == [("large", 3_000_000), ("out", 7)]
    until(lambda: cli("runners", "remove", full).returncode == 0, "the machine is left", 60)
