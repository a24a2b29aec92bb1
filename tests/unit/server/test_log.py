"""The server's log: rotated by size, read as one, and not filled by one message."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dstack.cli.server_log import ServerLog
from dstack.model.paths import ServerLayout
from dstack.server.log import QUIET, Bursts
from tests.environment.product import Home

SERVER = """
import logging, os, sys
from pathlib import Path
from dstack.model.paths import ServerLayout
from dstack.server import log
log.LARGEST = 1000
log.set_up(ServerLayout(Path(sys.argv[1])))
for number in range(int(sys.argv[2])):
    logging.getLogger("dstack").info("line %04d", number)
os.write(2, b"written by Python itself\\n")
"""


@pytest.fixture
def layout(tmp_path: Path) -> ServerLayout:
    made = ServerLayout(tmp_path)
    made.state.mkdir()
    return made


def serve(layout: ServerLayout, lines: int) -> None:
    """Log in a process whose stderr is the log, as that of a server in the background is."""
    with layout.server_log.open("ab") as log:
        subprocess.run([sys.executable, "-c", SERVER, layout.home, str(lines)], stderr=log, check=True)


def test_it_is_rotated_and_read_as_one(layout: ServerLayout) -> None:
    serve(layout, 40)

    assert len([path for path in layout.server_logs if path.exists()]) > 1
    with ServerLog(layout) as log:
        lines = list(log.lines())
    assert [line[-5:-1] for line in lines[:-1]] == [f"{number:04d}".encode() for number in range(40)]
    assert lines[-1] == b"written by Python itself\n"
    assert layout.server_log.read_bytes().endswith(lines[-1])


def test_a_few_files_are_kept(layout: ServerLayout) -> None:
    serve(layout, 400)

    assert all(path.stat().st_size < 1200 for path in layout.server_logs)
    assert len(list(layout.state.iterdir())) == len(layout.server_logs) == 4


def test_a_reader_follows_across_rotation(layout: ServerLayout) -> None:
    layout.server_log.write_bytes(b"one\n")
    with ServerLog(layout) as log:
        assert list(log.lines()) == [b"one\n"]
        assert log.added() == b""

        with layout.server_log.open("ab") as file:
            file.write(b"two\n")
        layout.server_log.rename(layout.server_logs[-2])
        layout.server_log.write_bytes(b"three\n")

        assert [log.added(), log.added(), log.added()] == [b"two\n", b"three\n", b""]


class Clock:
    now = 0.0


@pytest.fixture
def logged() -> tuple[logging.Logger, list[str], Clock]:
    """A logger with the filter, what reached its handler, and the filter's clock."""
    lines: list[str] = []
    clock = Clock()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Handler()
    handler.addFilter(Bursts(handler.handle, lambda: clock.now))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger, lines, clock


def test_a_burst_is_counted(logged: tuple[logging.Logger, list[str], Clock]) -> None:
    logger, lines, clock = logged
    for _ in range(1000):
        logger.warning("out of files")
        logger.warning("host %s is gone", "a")
    logger.warning("host %s is gone", "b")
    assert lines == ["out of files", "host a is gone", "host b is gone"]

    clock.now += QUIET + 1
    logger.warning("out of files")

    assert lines[3:] == [
        "999 more times in 61 s: out of files",
        "999 more times in 61 s: host a is gone",
        "out of files",
    ]


def test_errors_with_the_same_text_and_another_cause_are_both_logged(
    logged: tuple[logging.Logger, list[str], Clock],
) -> None:
    logger, lines, _ = logged
    for error in (ValueError("a"), ValueError("b"), ValueError("a")):
        logger.error("failed", exc_info=error)

    assert lines == ["failed", "failed"]


def test_very_many_different_messages_are_all_logged_and_not_remembered(
    logged: tuple[logging.Logger, list[str], Clock],
) -> None:
    logger, lines, _ = logged
    for number in range(5000):
        logger.info("%d", number)

    assert len(lines) == 5000
    assert len(logger.handlers[0].filters[0].seen) <= 1000  # type: ignore[union-attr]


def test_a_request_that_a_stop_cuts_off_is_no_error(dstack_home: Home) -> None:
    """The server is stopped while it waits for a machine that accepts connections without a word."""
    dstack_home.serve()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        adding = dstack_home.popen("runners", "add", f"u@127.0.0.1:{port}", "--fingerprint", "SHA256:x")
        with adding, silent.accept()[0]:
            assert dstack_home.run("server", "stop").returncode == 0
            adding.communicate(timeout=60)

        log = dstack_home.run("server", "logs").stdout
        assert "Shutting down" in log
        assert "Traceback" not in log
        assert "ERROR" not in log
