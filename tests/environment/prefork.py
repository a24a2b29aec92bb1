"""Runs dstack's commands and servers without starting Python for each: a process with everything loaded forks.

Each fork has its own process id, working directory, environment, streams and exit code, as a newly started one has.
There is one forking process per set of variables that the interpreter reads before it runs any code (`PYTHON...`, the
locale).
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TextIO

AT_START = ("LANG", "LC_", "LANGUAGE", "PYTHON")
"""Prefixes of the variables that the interpreter reads when it starts."""
MOST = 100_000
"""The most bytes in a request, because the kernel limits the size of a message."""


def run(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[bytes]:
    """Run `dstack ARGUMENTS`. Raises subprocess.TimeoutExpired after `timeout` seconds."""
    words = ["dstack", *arguments]
    forker, request = _forker("command", _fixed(environment)), _request(words, cwd, environment)
    out, err, told = _exchange(forker, request, timeout, words)
    assert told.count(b"\n") == 2, f"the process that forks has ended: {told!r}"
    return subprocess.CompletedProcess(words, int(told.splitlines()[1]), out, err)


def serve(home: Path, environment: Mapping[str, str], log: Path) -> int:
    """Start this home's server as a command would; return its process id. Its output goes to `log`."""
    from dstack.client import embedded

    ours, theirs = os.pipe()
    with open(os.devnull) as nothing, log.open("ab") as said, os.fdopen(ours, "rb") as told, os.fdopen(theirs, "wb"):
        words = ["dstack", "--home", str(home), "--socket", str(embedded.socket_path(home))]
        request = _request(words, home, environment)
        files = [nothing.fileno(), said.fileno(), said.fileno(), theirs]
        socket.send_fds(_forker("server", _fixed(environment)), [request], files)
        return int(told.readline())


def _request(words: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> bytes:
    request = json.dumps({"words": words, "cwd": os.fspath(cwd), "environment": dict(environment)}).encode()
    assert len(request) < MOST, "more than one message holds"
    return request


def _fixed(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in environment.items() if name.startswith(AT_START)))


@functools.cache
def _forker(what: str, fixed: tuple[tuple[str, str], ...]) -> socket.socket:
    """Return the socket of a forking process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), what],
            pass_fds=[theirs.fileno()],
            env={"PATH": os.environ["PATH"], **dict(fixed)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close() -> None:
        ours.close()
        process.wait(30)

    atexit.register(close)
    return ours


def _exchange(
    forker: socket.socket, request: bytes, timeout: float, words: Sequence[str]
) -> tuple[bytes, bytes, bytes]:
    """Return the command's stdout and stderr, and two lines with its process id and its exit code."""
    pipes = [os.pipe() for _ in range(3)]
    read: dict[int, bytes] = {ours: b"" for ours, _ in pipes}
    with open(os.devnull) as nothing:
        socket.send_fds(forker, [request], [nothing.fileno(), *(theirs for _, theirs in pipes)])
    for _, theirs in pipes:
        os.close(theirs)
    told = pipes[2][0]
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        try:
            for ours in read:
                selector.register(ours, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(deadline - time.monotonic())
                if not ready:
                    raise subprocess.TimeoutExpired(words, timeout)
                for key, _ in ready:
                    piece = os.read(key.fd, 1 << 20)
                    read[key.fd] += piece
                    if not piece:
                        selector.unregister(key.fd)
        except BaseException:
            if read[told].count(b"\n") == 1:
                os.kill(int(read[told]), signal.SIGKILL)
            raise
        finally:
            for ours in read:
                os.close(ours)
    return read[pipes[0][0]], read[pipes[1][0]], read[told]


def _fork(channel: socket.socket, main: Callable[[], None]) -> None:
    """Fork for each request and report how `main` ended, until the socket is closed."""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is channel:
                    request, files, _, _ = socket.recv_fds(channel, MOST, 4)
                    if not request:
                        return
                    pid = os.fork()
                    if not pid:
                        for other in [key for key in selector.get_map().values() if key.data]:
                            os.close(other.fd)
                            os.close(other.data[1])
                        selector.close()
                        channel.close()
                        _become(request, files, main)
                    os.write(files[3], b"%d\n" % pid)
                    os.set_inheritable(files[3], False)
                    for file in files[:3]:
                        os.close(file)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, files[3]))
                else:
                    pid, told = key.data
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    with suppress(BrokenPipeError):  # nobody waits for a server
                        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    os.close(told)


def _command() -> Callable[[], None]:
    """Import the command line, with everything that it imports later."""
    import dstack.cli
    import dstack.client
    import dstack.model
    import dstack.snapshot

    _load(dstack.cli)
    for package in (dstack.client, dstack.model, dstack.snapshot):
        _load(package)
    for name in ("rich.progress", "rich.table", "urllib.request"):
        importlib.import_module(name)
    return dstack.cli.main


def _server() -> Callable[[], None]:
    """Import the server, with everything that it imports and all templates that it reads later."""
    import dstack.artifacts
    import dstack.engine
    import dstack.hosts
    import dstack.mirror
    from dstack import render
    from dstack.server.__main__ import main

    for package in (dstack.artifacts, dstack.engine, dstack.hosts, dstack.mirror):
        _load(package)
    for name in ("boto3", "botocore.exceptions"):
        importlib.import_module(name)
    for folder in render.FOLDERS:
        for template in folder.rglob("*.sh.j2"):
            with suppress(Exception):  # no values are there; it is read and kept
                render.text(template.relative_to(folder).as_posix().removesuffix(".sh.j2"))

    def serve() -> None:
        if any(name.startswith("CHAOS_") for name in os.environ):
            importlib.import_module("tests.chaos.points").install()
        main()

    return serve


def _load(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _stream(number: int, like: TextIO) -> TextIO:
    """Open a text stream as the interpreter does."""
    file = io.FileIO(number, "w" if number else "r", closefd=False)
    whole = io.BufferedWriter(file) if number else io.BufferedReader(file)
    return io.TextIOWrapper(whole, like.encoding, like.errors, line_buffering=number == 2)


def _become(request: bytes, files: Sequence[int], main: Callable[[], None]) -> None:
    """Run the requested command or server, and exit."""
    os.setsid()
    asked = json.loads(request)
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = _stream(0, sys.stdin), _stream(1, sys.stdout), _stream(2, sys.stderr)
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    os.chdir(asked["cwd"])
    sys.argv = asked["words"]
    code: object = None
    try:
        main()
    except SystemExit as end:
        code = end.code
    if threading.active_count() == 1 and isinstance(code, int | None):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)  # to take an interpreter apart costs as much as the command
    sys.exit(code)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names are not the standard library's
    loaded = {"command": _command, "server": _server}[sys.argv[2]]()
    gc.collect()
    gc.freeze()
    _fork(socket.socket(fileno=int(sys.argv[1])), loaded)
