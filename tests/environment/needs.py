"""What to do where a test's real part can't be had."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip on a person's machine; fail where everything must run: in CI and as root."""
    if os.environ.get("CI") or os.geteuid() == 0:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def root(what: str) -> None:
    """Go on as root only."""
    if os.geteuid() != 0:
        missing(f"{what} needs root; run it as: sudo scripts/test")
