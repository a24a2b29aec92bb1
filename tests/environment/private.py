"""Runs a program in mount, network and process namespaces of its own, with its own /tmp, /run and /etc."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache

SETUP = """
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/sshd /run/etc
cp -a /etc/. /run/etc 2> /dev/null || [ -s /run/etc/passwd ]
rm -f /run/etc/*.lock
mount --bind /run/etc /etc
case $PWD/ in /tmp/*) ;; *) mount -t tmpfs -o mode=1777 tmpfs /tmp ;; esac
set +e
"$@"
exit $?
"""
"""The shell stays the first process of its namespace, so that it reaps what others leave, and all end with it. Somebody
may add a user outside meanwhile: a lock in /etc may be gone when it is copied, and must not be in the copy."""


def private(words: Sequence[str]) -> list[str]:
    """Return the command that runs `words` in its own namespaces. Its mounts, its processes, its ports and its files in
    /tmp are invisible from outside, and gone when it has ended."""
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
    return [*own, "sh", "-c", SETUP, "sh", *words]


@cache
def possible() -> bool:
    """Whether this process may have namespaces. It may not without root, nor in many containers."""
    return os.geteuid() == 0 and subprocess.run(private(["true"]), capture_output=True).returncode == 0
