"""docs/codes.md lists every code with its meaning, and no code compares texts that are meant for people."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dstack.errors import ErrorCode
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Phase, Status
from dstack.model.text.code import Code
from dstack.model.triggers.codes import TriggerCode

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "codes.md").read_text()
FROM_OTHER_PROGRAMS = ("commands", "hosts", "executors/docker/failures.py", "snapshot", "plumbing", "artifacts/s3")
"""Where the texts of Docker, ssh, git and botocore enter."""
TEXTS = {"message", "reason", "text", "words", "why", "hint", "trouble"}


@pytest.mark.parametrize("codes", [ReasonCode, ErrorCode, TriggerCode])
def test_the_page_lists_every_code(codes: type[Code]) -> None:
    rows = "".join(f"| `{code}` | {code.meaning} |\n" for code in codes)

    assert f"| code | meaning |\n|---|---|\n{rows}\n" in PAGE + "\n"


def test_the_page_lists_every_phase_and_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([`\w, ]+) \| \w", PAGE, re.MULTILINE)

    assert [phase for phase, _ in rows] == [phase.value for phase in Phase]
    assert {status for _, statuses in rows for status in re.findall(r"\w+", statuses)} == {s.value for s in Status}


@pytest.mark.parametrize("code", [*ReasonCode, *ErrorCode, *TriggerCode])
def test_a_code_is_in_kebab_case(code: Code) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.value)
    assert code.meaning.endswith(".")


def comparisons(path: Path) -> list[int]:
    """Return the lines that compare a literal with an attribute that holds a text for people."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            literal = any(
                isinstance(side, ast.Constant) and isinstance(side.value, str) and side.value for side in sides
            )
            if literal and any(isinstance(side, ast.Attribute) and side.attr in TEXTS for side in sides):
                found.append(node.lineno)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
            owner = node.func.value
            if isinstance(owner, ast.Attribute) and owner.attr in TEXTS:
                found.append(node.lineno)
    return found


def test_no_text_for_people_is_compared() -> None:
    package = ROOT / "dstack"
    own = [
        path
        for path in package.rglob("*.py")
        if not path.relative_to(package).as_posix().startswith(FROM_OTHER_PROGRAMS)
    ]

    assert {str(path): lines for path in own if (lines := comparisons(path))} == {}
