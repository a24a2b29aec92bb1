"""Every text that dstack shows is in tests/golden/messages.txt, so that a review shows changes of wording.

After such a change: scripts/messages >tests/golden/messages.txt, and read the diff.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "messages.txt"


def test_every_text_is_as_it_was_reviewed() -> None:
    program = [sys.executable, ROOT / "scripts" / "lib" / "messages.py"]
    printed = subprocess.run(program, capture_output=True, text=True, encoding="utf-8", check=True, cwd="/").stdout

    assert printed == GOLDEN.read_text(encoding="utf-8"), "if this is meant: scripts/messages >" + str(GOLDEN)
