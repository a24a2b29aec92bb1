"""A machine that stops answering delays nobody."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Cli
from tests.e2e.project import single
from tests.environment import account
from tests.environment.sshd import Sshd, descendants
from tests.environment.waiting import until


@contextmanager
def frozen(server: Sshd) -> Iterator[None]:
    """sshd and its connections neither answer nor end."""
    assert server._process is not None
    pids = [server._process.pid, *descendants(server._process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_lists_and_runs_go_on_without_it(
    cli: Cli, runner: str, user: account.Account, busybox: str, session_folder: Path, tmp_path: Path
) -> None:
    folder = single(tmp_path / "p", busybox, "echo ran")
    silent = Sshd(session_folder / "sshd-silent", user.name)
    silent.start()
    there = f"{silent.user}@{silent.host}:{silent.port}"
    known = ("--identity", str(silent.identity), "--fingerprint", silent.fingerprint)
    try:
        added = cli("runners", "add", there, "--name", "silent", "--root", f"{user.home}/silent", *known)
        assert added.returncode == 0, added.stderr

        def shown() -> dict[str, tuple[str, str | None]]:
            machines = json.loads(cli("runners", "--json").stdout)
            return {each["name"]: (each["state"], each["reason"]) for each in machines}

        def noticed() -> dict[str, tuple[str, str | None]] | None:
            now = shown()
            return now if now["silent"][0] != "ready" else None

        with frozen(silent):
            told = until(noticed, "its silence is noticed")
            assert told["box"] == ("ready", None)
            assert told["silent"][0] == "unreachable"
            assert str(told["silent"][1]).startswith("no answer since 20")
            cli("server", "stop")
            ran = cli("run", "job", cwd=folder)
            assert (ran.returncode, ran.stdout) == (0, "ran\n"), ran.stderr
            assert shown()["silent"] == ("unreachable", "not checked yet"), "the run waited for its answer"
        until(lambda: shown()["silent"] == ("ready", None), "it is back")
        assert cli("runners", "remove", "silent").returncode == 0
    finally:
        silent.close()
