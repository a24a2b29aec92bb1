"""A terminal in this process, at which a test can look at any time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dstack.cli.output import log_writer, progress, screen, show
from tests.unit.cli.terminal import Tty, looks


class Watched:
    """stdout and stderr, which are the same terminal."""

    def __init__(self, columns: int) -> None:
        self.seen, self.columns = io.BytesIO(), columns
        self.stream = Tty(self.seen)

    def __call__(self) -> list[str]:
        """Return the lines that a person sees now."""
        return looks(self.seen.getvalue(), self.columns)


@pytest.fixture(params=[80])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A terminal of 80 columns, or of as many as the test's parameter says."""
    watched = Watched(request.param)
    streams = SimpleNamespace(stdout=watched.stream, stderr=watched.stream)
    with monkeypatch.context() as patch:
        patch.setenv("COLUMNS", str(watched.columns))
        patch.setenv("TERM", "xterm-256color")
        patch.delenv("NO_COLOR", raising=False)
        for module in (log_writer, progress, screen, show):  # pytest sets sys.stdout again after the fixtures
            patch.setattr(module, "sys", streams)
        yield watched
        screen.SCREEN.close()
