"""A user account for tests: not root, no sudo, may use Docker."""

from __future__ import annotations

import fcntl
import grp
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.environment import needs


@dataclass(frozen=True)
class Account:
    """A user account on this machine."""

    name: str
    home: Path
    uid: int


def create(name: str, home: Path, group: int, shell: str = "/bin/bash") -> Account:
    """Create the user as a member of the group. Its password is unusable but not locked, because sshd refuses locked
    accounts."""
    needs.root("a user of the tests' own")
    with turn():
        subprocess.run(
            ["useradd", "--create-home", "--home-dir", home, "--groups", str(group), "--shell", shell, name],
            check=True,
            capture_output=True,
        )
        subprocess.run(["usermod", "--password", "*", name], check=True)
    return Account(name, home, home.stat().st_uid)


def remove(account: Account) -> None:
    """Kill the user's processes, and remove the user and its home."""
    for pid in processes(account.uid):
        with suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, signal.SIGKILL)
    with turn():
        subprocess.run(["userdel", "--force", account.name], check=True, capture_output=True)
    shutil.rmtree(account.home)


@contextmanager
def turn() -> Iterator[None]:
    """Take turns with other test sessions: useradd gives up if another one holds the lock of /etc/passwd."""
    with Path("/tmp/dstack-test-accounts.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def processes(uid: int) -> list[int]:
    """Return the ids of a user's processes."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
        except FileNotFoundError:
            continue
    return found


def docker_group(socket: Path = Path("/var/run/docker.sock")) -> int:
    """Return the group whose members may use Docker."""
    group = socket.stat().st_gid if socket.exists() else grp.getgrnam("docker").gr_gid
    if group == 0:
        needs.missing(f"only root may use {socket}; create a group 'docker' and restart Docker")
    return group
