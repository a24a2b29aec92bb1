"""What a launch costs its machine when everything is there already: processes until `docker run` is one of them, and
bytes of the script."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from dstack.commands.job.launch import launch
from dstack.hosts.shell import START, wrap
from tests.e2e.protocol import Ground

PROCESSES = 15
"""At most: sh, what reads and checks the script, mkdir, flock, a look at the image, git and its folder, docker run."""
BYTES = 8_000
DOCKER = r"""#!/bin/sh
if [ "$1" = image ]; then printf 'sha256:1\n\n\n' && exit; fi
read -r _ _ _ _ last < /proc/loadavg
echo "$last" > "$COUNT"
"""
COUNTED = f"""
read -r _ _ _ _ before < /proc/loadavg
sh -c '{START}' < "$1"
read -r ran < "$COUNT"
echo "processes=$((ran - before))"
"""
"""In a process namespace of its own, the last number of /proc/loadavg counts the processes of that alone."""


def test_a_warm_launch_starts_few_processes_and_sends_few_bytes(tmp_path: Path) -> None:
    # Given a machine with the code, and a docker that does at once what it is told
    ground = Ground(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    daemon = f"{os.getpid()}:{Path(f'/proc/{os.getpid()}/stat').read_text().rpartition(')')[2].split()[19]}"
    context = replace(ground.context, daemons=(daemon,))

    # When a job is launched there
    sent = wrap(launch(context, ground.order("a1", "busybox", "echo hello")).script, "marker")
    (tmp_path / "sent").write_bytes(sent)
    own = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else []), "--pid", "--fork"]
    words = [*own, "sh", "-c", COUNTED, "sh", str(tmp_path / "sent")]
    path, count = f"{tmp_path}/bin:{os.environ['PATH']}", str(tmp_path / "count")
    environment = {"PATH": path, "HOME": str(tmp_path), "COUNT": count}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)

    # Then it has begun, and that was cheap
    said = dict(line.partition("=")[::2] for line in ran.stdout.splitlines())
    assert (said["outcome"], said["docker"]) == ("started", daemon), ran.stderr
    assert (ground.tree("a1") / "train.py").exists()
    assert int(said["processes"]) <= PROCESSES
    assert len(sent) <= BYTES
