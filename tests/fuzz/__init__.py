"""Inputs that try to break something. Whatever a test here is given, dstack accepts it or refuses it clearly, in a time
in proportion to its size.

    DSTACK_EXAMPLES=10000 .venv/bin/python -m pytest -n 0 tests/fuzz     # 10,000 inputs for each test
    .venv/bin/python -m pytest -n 0 -m guided tests/fuzz                  # inputs that reach new code (see guided.py)

An input that broke something becomes a plain test next to the code that is mended.
"""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, settings

from dstack.cli.output import failure
from dstack.errors import DstackError, ErrorCode
from dstack.model.api import wire

T = TypeVar("T")

EXAMPLES = int(os.environ.get("DSTACK_EXAMPLES") or ("300" if os.environ.get("CI") else "50"))
"""How many inputs each test tries."""
SECONDS, SECONDS_PER_CHARACTER = 1.0, 1e-4
"""Processor time that an input may take. It grows with the input, so that quadratic work on a long one is found."""
HANGS = 20.0
"""Seconds of processor time after which the work is interrupted."""
LONGEST = 100_000
"""Characters of the longest message."""

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@contextmanager
def in_time(size: int = 0) -> Iterator[None]:
    """Fail if the body takes more processor time than an input of this size may."""

    def interrupt(signum: int, frame: object) -> None:
        raise AssertionError(f"no end after {HANGS:g} seconds of processor time")

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS)
    started = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    took = time.process_time() - started
    assert took < SECONDS + size * SECONDS_PER_CHARACTER, f"{took:.1f} s for an input of {size} characters"


def outcome(act: Callable[[], T], *places: str, size: int = 0) -> T | None:
    """Return what `act` returns, or None if it refuses its input with a clear error: one of dstack's own, in clean text
    of a bounded length, which begins with one of the `places` if any are given."""
    try:
        with in_time(size):
            return act()
    except DstackError as refused:
        check(refused, *places)
        return None


def check(refused: DstackError, *places: str) -> None:
    """Fail unless the error is clear, as people see it and as programs do."""
    assert refused.code not in (ErrorCode.ERROR, ErrorCode.INTERNAL), refused
    assert refused.message.strip()
    assert not places or refused.message.startswith(places), refused.message
    text, document = shown(refused), shown(refused, as_json=True)
    assert len(text) < LONGEST
    assert "Traceback" not in text
    assert all(map(is_clean, text)), text
    assert json.loads(document)["error"]["message"] == refused.message


def shown(refused: DstackError, *, as_json: bool = False) -> str:
    """Return what a command prints."""
    stderr = io.StringIO()
    with redirect_stderr(stderr):
        assert failure.report(refused, as_json=as_json) == refused.exit_code
    return stderr.getvalue()


def is_clean(letter: str) -> bool:
    """Whether a terminal shows the character as it is: no control character, and none that reorders the line."""
    return letter == "\n" or not (
        ord(letter) < 32
        or 0x7F <= ord(letter) < 0xA0
        or letter in "\u2028\u2029\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
    )


def storable(answer: Any) -> None:
    """Fail unless the value can become JSON and back, as what the server stores does."""
    built = msgspec.to_builtins(answer)
    wire.decode(wire.encode(built), object)
