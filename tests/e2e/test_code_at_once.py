"""Many runs of one repository at once, and what a small change costs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dstack.commands.command import Command, Result, succeeded
from dstack.engine.transfer.push_code import CodePush
from dstack.executors.docker.executor import DockerExecutor
from dstack.executors.docker.memory import Memory
from dstack.mirror.mirror import Mirror
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Launched, Order
from dstack.model.runner.runner import Address, Runner
from dstack.snapshot.take import take
from dstack.store.database import Database
from dstack.store.tables.contents import KnownObjects
from tests.environment.account import Account
from tests.environment.sshd import Sshd
from tests.environment.waiting import until
from tests.environment.wire import Wire

from .project import git, single
from .protocol import Ground

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_ten_runs_of_one_repository_send_one_pack(
    cli: Cli, runner: str, user: Account, tmp_path: Path, busybox: str
) -> None:
    root = single(tmp_path / "project", busybox, "cat code.py")
    (root / "code.py").write_text("print(1)\n" * 20_000)
    (root / "data.bin").write_bytes(bytes(range(256)) * 1000)
    names = [f"at-once-{number}" for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        submitted = pool.map(lambda name: cli("run", "job", "-d", "-q", "--name", name, cwd=root), names)
    assert [done.stdout for done in submitted] == [f"{name}\n" for name in names]
    for name in names:
        done = cli("wait", name, cwd=root)
        assert done.returncode == 0, done.stderr
        assert cli("logs", name, cwd=root).stdout == "print(1)\n" * 20_000
    packs = list((user.home / ".dstack-host").glob("*/*/mirrors/*.git/objects/pack/*.pack"))
    assert len(packs) == 1, packs


SAMPLE = 4000
"""Bytes, at most, of the sample that the server takes of a runner whose job lasts longer than a second."""

RECEIVING = 5000
"""Bytes of the part of a launch's script that takes a pack."""


def test_bytes_on_the_wire(
    cli: Cli, sshd: Sshd, user: Account, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    wire = Wire(sshd.port)
    there = ("runners", "add", f"{sshd.user}@127.0.0.1:{wire.port}", "--name", "there")
    done = cli(*there, "--identity", str(sshd.identity), "--fingerprint", sshd.fingerprint)
    assert done.returncode == 0, done.stderr
    small = single(tmp_path / "small", busybox, "true")
    large = single(tmp_path / "large", busybox, "true")
    (large / "code.py").write_bytes(b"".join(b"%d\n" % number for number in range(100_000)))
    (large / "data.bin").write_bytes(os.urandom(300_000))
    git(large, "add", "-A")
    git(large, "commit", "-qm", "code")

    def cost(project: Path) -> int:
        before = wire.count
        ran = cli("run", "job", cwd=project)
        assert ran.returncode == 0, ran.stderr
        return wire.count - before

    def cost_of_a_change() -> int:
        with (large / "code.py").open("a") as file:
            file.write("one more line\n")
        return cost(large)

    try:
        cost(small)
        first = cost(large)
        # The least of several: on a busy machine, the server observes a job more often before it has ended.
        protocol = min(cost(small) for _ in range(6))
        again = min(cost(large) for _ in range(6))
        change = min(cost_of_a_change() for _ in range(6))
    finally:
        wire.close()
    assert first - protocol > 300_000
    assert abs(again - protocol) < 1000 + SAMPLE, "the same tree again costs nothing"
    assert -SAMPLE < change - again < RECEIVING + 2000 + SAMPLE


def test_a_large_tree_is_kept_ready(cli: Cli, runner: str, user: Account, tmp_path: Path, busybox: str) -> None:
    root = single(tmp_path / "project", busybox, "find . -path ./.git -prune -o -type f -exec sha256sum {} + | sort")
    for number in range(1300):
        (root / f"{number}.py").write_text(f"{number}\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "many")

    def spares() -> list[Path]:
        return list(user.home.glob(".dstack-host/*/*/mirrors/*.git.spare/tree/7.py"))

    first = cli("run", "job", cwd=root)
    assert first.returncode == 0, first.stderr
    until(lambda: len(spares()) == 1, "one more tree is there")
    kept = spares()[0].stat().st_ino
    (root / "8.py").write_text("changed\n")
    (root / "9.py").unlink()

    second = cli("run", "job", "--name", "second", cwd=root)

    assert second.returncode == 0, second.stderr
    listed = subprocess.run(
        ["sh", "-c", "find . -path ./.git -prune -o -type f -exec sha256sum {} + | sort"], cwd=root, capture_output=True
    )
    assert second.stdout == listed.stdout.decode()
    taken = [path.stat().st_ino for path in user.home.glob(".dstack-host/*/*/jobs/*/workflow/7.py")]
    assert kept in taken
    until(lambda: len(spares()) == 1, "the next one is there")
    assert cli("runners", "remove", runner).returncode == 0
    assert not (user.home / ".dstack-host").exists()


class Counted:
    """A host that runs scripts directly, and counts them."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.sent: list[int] = []

    async def run(self, command: Command[Any], *, timeout: float | None = None) -> Result:
        stdin = command.stdin if isinstance(command.stdin, bytes) else b"".join([d async for d in command.stdin()])
        self.sent.append(len(stdin))
        process = self.ground.process(command.script)
        out, err = await asyncio.to_thread(process.communicate, stdin)
        return Result(process.returncode, out, err)

    async def stream(self, command: Command[Any]) -> AsyncGenerator[bytes, None]:
        result = await self.run(command)
        yield result.stdout
        succeeded(command.name, result)


def untold(sent: int, total: int) -> None:
    pass


def test_a_small_change_is_one_round_trip(tmp_path: Path, busybox: str) -> None:
    ground = Ground(tmp_path / "ground")
    host = Counted(ground)
    project = single(tmp_path / "project", busybox, "true")
    (project / "code.py").write_bytes(b"".join(b"%d\n" % number for number in range(100_000)))
    git(project, "add", "-A")
    git(project, "commit", "-qm", "code")
    (tmp_path / "state").mkdir()
    box = Runner(name="box", address=Address(host="box"))
    executor = DockerExecutor(Memory(), box, host, ground.context)
    known, locks = KnownObjects(Database(tmp_path / "state/x.db")), defaultdict(asyncio.Lock)

    def go(name: str, snapshot: Snapshot) -> Launched:
        order = Order(job=name, attempt=name, image=busybox, snapshot=snapshot, script="true")
        job_on_runner: Any = SimpleNamespace(
            snapshot=snapshot,
            runner=box,
            executor=executor,
            store=SimpleNamespace(known_objects=known),
            context=SimpleNamespace(locks=locks, mirror=lambda repo: Mirror(tmp_path / f"{repo}.git")),
        )
        host.sent.clear()

        async def launched() -> Launched:
            return await CodePush(job_on_runner, untold).launch(lambda pack: executor.launch(order, b"", pack))

        return asyncio.run(launched())

    def submitted() -> Snapshot:
        with take(project) as taken:
            mirror = Mirror(tmp_path / f"{taken.snapshot.repo}.git")
            mirror.receive(taken.snapshot, taken.full_pack())
            return taken.snapshot

    try:
        assert go("first", submitted()).outcome == "started"
        assert len(host.sent) == 2, "a large pack goes ahead"
        with (project / "code.py").open("a") as file:
            file.write("one more line\n")
        changed = submitted()
        assert go("second", changed).outcome == "started"
        assert len(host.sent) == 1
        assert 0 < host.sent[0] < 2000
        assert ground.tree("second").joinpath("code.py").read_bytes().endswith(b"one more line\n")
        assert go("third", changed).outcome == "started"
        assert host.sent == [0], "the same tree again costs nothing"
        subprocess.run(["rm", "-rf", *ground.home.glob("mirrors/*")], check=True)
        assert go("fourth", changed).outcome == "started"
        assert len(host.sent) > 1, "a host that lost its mirror says so, and gets all of it"
    finally:
        ground.close()
