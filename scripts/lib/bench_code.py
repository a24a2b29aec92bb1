#!/usr/bin/env python3
"""Compare what it costs to send code to a machine with `rsync -az` of the same tree, in bytes and seconds.

    bench_code.py WORK USER PORT IMAGE FINGERPRINT DOCKER FILES HISTORY_MB

Both go through a proxy that counts bytes. The cost of dstack's own protocol is that of a run of an unchanged tree.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

BLOB = 25_000_000
QUIET = 2.0
"""A run is over after this many seconds without a byte."""


class Proxy:
    """Forwards connections to a port of this machine and counts their bytes."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.count = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            for source, target in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 18):
                with self.lock:
                    self.count += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()


def git(folder: Path, *arguments: str) -> None:
    settings = ("user.name=T", "user.email=t@example.org", "core.compression=0", "gc.auto=0")
    options = [word for setting in settings for word in ("-c", setting)]
    subprocess.run(["git", "-C", folder, *options, *arguments], check=True)


def make(root: Path, image: str, files: int, history: int) -> None:
    """Many small files, and a large one that every commit replaces."""
    (root / ".dstack").mkdir(parents=True)
    (root / ".dstack/workflows.yaml").write_text(f"workflows:\n  - {{name: job, image: {image}, commands: ['true']}}\n")
    for number in range(files):
        file = root / f"src/{number % 200}/{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# file {number}\n" + f"value_{number} = {number}\n" * 60)
    git(root, "init", "-q")
    for number in range(max(history * 10**6 // BLOB, 1)):
        (root / "data.bin").write_bytes(os.urandom(BLOB))
        git(root, "add", "-A")
        git(root, "commit", "-qm", f"commit {number}")


def main() -> None:
    if len(sys.argv) != 9:
        sys.exit(__doc__)
    work, user, port, image, fingerprint, docker, files, history = sys.argv[1:]
    folder, proxy = Path(work), Proxy(int(port))
    root = folder / "project"
    make(root, image, int(files), int(history))
    git_size = sum(path.stat().st_size for path in (root / ".git").rglob("*") if path.is_file())
    print(f"{files} files, {git_size / 10**6:.0f} MB of history")
    identity = f"{work}/id_ed25519"
    known = (
        "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR -o IdentityAgent=none -F none"
    )
    remote = f"ssh -i {identity} -p {proxy.port} {known}"
    add = ["dstack", "runners", "add", f"{user}@127.0.0.1:{proxy.port}", "--name", "bench", "--identity", identity]
    add += ["--fingerprint", fingerprint, "--root", f"{work}/host", "--docker", docker]
    subprocess.run(add, check=True, capture_output=True)
    rsync = ["rsync", "-az", "--exclude", "/.git", "-e", remote, f"{root}/", f"{user}@127.0.0.1:{work}/rsync/"]
    dstack = ["dstack", "run", "job", "--runner", "bench"]

    def measure(command: list[str]) -> tuple[int, float]:
        before, begin = proxy.count, time.perf_counter()
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"{shlex.join(command)}: {done.stderr.decode(errors='replace')}")
        took = time.perf_counter() - begin
        return settled() - before, took

    def settled() -> int:
        """Return the count once the work after a run (a spare tree, removing the folder) has ended."""
        count, since = proxy.count, time.perf_counter()
        while time.perf_counter() - since < QUIET:
            time.sleep(0.1)
            if proxy.count != count:
                count, since = proxy.count, time.perf_counter()
        return count

    def row(name: str, ours: tuple[int, float], theirs: tuple[int, float]) -> None:
        print(f"{name:<22}{ours[0]:>13,} B {ours[1]:>7.2f} s{theirs[0]:>14,} B {theirs[1]:>7.2f} s")

    print(f"{'':<22}{'dstack run':>25}{'rsync -az':>26}")
    row("first", measure(dstack), measure(rsync))
    same = min(measure(dstack) for _ in range(3))
    row("nothing changed", same, measure(rsync))
    file = root / "src/7/7.py"
    changed = []
    for number in range(3):
        with file.open("a") as target:
            target.write(f"one_more = {number}\n")
        changed.append(measure(dstack))
        row("one line changed", changed[-1], measure(rsync))
    print(f"beyond the protocol: {min(changed)[0] - same[0]:,} B")
    with file.open("a") as target:
        target.write("and_committed = 1\n")
    git(root, "commit", "-qam", "one line")
    row("one line, committed", measure(dstack), measure(rsync))


main()
