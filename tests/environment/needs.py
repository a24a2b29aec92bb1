"""What to do if the machine lacks what a test needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test on a developer's machine; fail it in CI and as root, where everything must run."""
    if os.environ.get("CI") or os.geteuid() == 0:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def root(what: str) -> None:
    """Skip or fail the test unless it runs as root."""
    if os.geteuid() != 0:
        missing(f"{what} needs root; run it as: sudo scripts/test")
