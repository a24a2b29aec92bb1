"""Runs tests of this folder with inputs that are changed until they reach new code, for as many inputs as given:

    .venv/bin/pip install atheris
    .venv/bin/python tests/fuzz/guided.py 10000                            # all of them
    .venv/bin/python tests/fuzz/guided.py 10000 test_inventories           # those of a file
    .venv/bin/python tests/fuzz/guided.py 10000 test_inventories.test_any_ini_file

`pytest -m guided tests/fuzz` does the same. The properties are those of the tests. An input that breaks one is printed
by Hypothesis, and can be tried again with the test alone, which finds it in `.hypothesis`.
"""

from __future__ import annotations

import importlib
import inspect
import random
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SEEDS, LONGEST = 30, 8192
"""How many random inputs it begins with, and the bytes of the longest: Hypothesis needs many for one example."""
PACKAGES = ["dstack"]
"""What is measured: an input that reaches a new branch of these is kept, and changed further."""


def found() -> list[str]:
    """Return all tests that can be guided, as FILE.TEST: those whose only arguments are drawn."""
    names = []
    for file in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.fuzz.{file.stem}")
        names += [f"{file.stem}.{name}" for name, test in vars(module).items() if guidable(test)]
    return names


def guidable(test: object) -> bool:
    return hasattr(test, "hypothesis") and not inspect.signature(test).parameters  # type: ignore[arg-type]


def guide(name: str, runs: int) -> None:
    """Run one test. Ends the process."""
    import atheris

    file, _, test = name.partition(".")
    with atheris.instrument_imports(include=PACKAGES):
        module = importlib.import_module(f"tests.fuzz.{file}")
    run = getattr(module, test).hypothesis.fuzz_one_input
    with tempfile.TemporaryDirectory() as corpus:
        for number in range(SEEDS):
            (Path(corpus) / str(number)).write_bytes(random.Random(number).randbytes(LONGEST // (number + 1)))
        atheris.Setup(
            [
                name,
                f"-atheris_runs={runs}",
                "-len_control=0",
                f"-max_len={LONGEST}",
                "-timeout=60",
                f"-artifact_prefix={corpus}/",
                corpus,
            ],
            run,
        )
        atheris.Fuzz()


def main() -> int:
    sys.path[0] = str(HERE.parents[1])
    runs, *wanted = sys.argv[1:]
    if len(wanted) == 1 and "." in wanted[0]:
        guide(wanted[0], int(runs))
    failed = []
    for name in found():
        if not wanted or name.partition(".")[0] in wanted:
            done = subprocess.run([sys.executable, __file__, runs, name])
            failed += [name] if done.returncode else []
    print("\n".join(f"FAILED {name}" for name in failed) or "nothing was found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
