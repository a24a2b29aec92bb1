"""Each test of this folder with inputs that are guided by the code that they reach: pytest -m guided tests/fuzz."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fuzz import guided

RUNS = os.environ.get("DSTACK_EXAMPLES") or "10000"


@pytest.mark.guided
@pytest.mark.parametrize("name", guided.found())
def test_guided(name: str) -> None:
    pytest.importorskip("atheris", reason="pip install atheris")

    done = subprocess.run([sys.executable, guided.__file__, RUNS, name], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
