"""Plans: runs, and faults that happen to them. Every promise holds."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import main


def test_a_few_plans() -> None:
    assert main(["--plans", "2"]) == 0


@pytest.mark.long
def test_many_plans() -> None:
    assert main(["--seed", "3", "--plans", "20", "--at-once", "4"]) == 0
