"""Runs a program in mount, network and process namespaces of its own, with its own /tmp, /run and /etc."""

from __future__ import annotations

import os
import random
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
sed -i "s/^UID_MIN.*/UID_MIN $1/; s/^UID_MAX.*/UID_MAX 1999999/" /run/etc/login.defs
shift
mount --bind /run/etc /etc
case $PWD/ in /tmp/*) ;; *) mount -t tmpfs -o mode=1777 tmpfs /tmp ;; esac
set +e
"$@"
exit $?
"""
"""The shell stays the first process of its namespace, so that it reaps what others leave, and all end with it. Somebody
may add a user outside meanwhile: a lock in /etc may be gone when it is copied, and must not be in the copy. Users that
are added inside have ids of their own: whoever kills all processes of a user outside sees those inside, too."""


def private(words: Sequence[str]) -> list[str]:
    """Return the command that runs `words` in its own namespaces. Its mounts, its processes, its ports and its files in
    /tmp are invisible from outside, and gone when it has ended."""
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
    first_user = random.randrange(100_000, 1_000_000)
    return [*own, "sh", "-c", SETUP, "sh", str(first_user), *words]


@cache
def possible() -> bool:
    """Whether this process may have namespaces. It may not without root, nor in many containers."""
    return os.geteuid() == 0 and subprocess.run(private(["true"]), capture_output=True).returncode == 0
