"""CONTRIBUTING.md names files that exist, and answers each of its questions with at most three."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
PATH = re.compile(r"`((?:dstack|docs|inventory|scripts|templates|tests)/[^\s`]*|\.ci/run|CHANGELOG\.md)`")


def test_every_path_exists() -> None:
    missing = [path for path in PATH.findall(PAGE) if not (ROOT / path).exists()]

    assert not missing


def test_every_question_has_an_answer_of_at_most_three_files() -> None:
    answers = PAGE.split("## Six questions")[1].split("\n## ")[0].splitlines()[4:]

    counts = [len(PATH.findall(answer)) for answer in answers if answer.startswith("|")]

    assert len(counts) == 6
    assert all(1 <= count <= 3 for count in counts)
