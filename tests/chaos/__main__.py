"""Plays random plans until the time is up, and says which promise was broken by which plan."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chaos.faults.kinds import FAULTS
from tests.environment.private import possible, private

ROOT = Path(__file__).parents[2]


class Tally:
    """Prints the result of each plan, and counts them."""

    def __init__(self, log: Path | None) -> None:
        self.log = log
        self.played = 0
        self.bad = 0
        self._lock = threading.Lock()

    def read(self, lines: Iterable[str]) -> None:
        """Read the results that one worker writes."""
        for line in lines:
            result = json.loads(line)
            broken = result["broken"]
            with self._lock:
                self.played += 1
                self.bad += bool(broken)
                if self.log:
                    with self.log.open("a") as log:
                        log.write(line)
                print(f"plan {result['seed']}: {'BROKEN' if broken else 'ok'} ({result['seconds']:.1f} s)", flush=True)
                if broken:
                    print(result["plan"], *(f"  -> {promise}" for promise in broken), sep="\n", flush=True)


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="number of the first plan; default: 1")
    parser.add_argument("--minutes", type=float, default=5, help="begin no plan after this time; default: 5")
    parser.add_argument("--plans", type=int, default=1_000_000, help="play at most so many plans")
    parser.add_argument("--at-once", type=int, default=2, help="play so many plans at once; default: 2")
    parser.add_argument("--fault", action="append", default=[], help="use only faults with this name; repeatable")
    parser.add_argument("--points", action="store_true", help="instead, kill the server at every named point")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append the results to this file, as lines of JSON")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep log and database of servers that broke a promise here",
    )
    given = parser.parse_args(words)
    names = [fault.__name__ for fault in FAULTS]
    if unknown := set(given.fault) - set(names):
        parser.error(f"no fault {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    return given


@contextmanager
def worker(command: list[str], alone: bool) -> Iterator[subprocess.Popen[str]]:
    """Start a process that plays plans. It cleans up and ends when its stdin does."""
    process = subprocess.Popen(
        command if alone else private(command),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process alone
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def tasks(given: argparse.Namespace, workers: int) -> list[list[str]]:
    """Return what to run: the module of each worker, with its arguments."""
    if given.points:
        return [["tests.chaos.kills", storage] for storage in ("folder", "s3")]
    kept = given.keep.absolute() if given.keep else ""
    end, words = given.seed + given.plans, [f"{60 * given.minutes}", f"{kept}", *given.fault]
    return [
        ["tests.chaos.worker", f"{given.seed + number}", f"{end}", f"{workers}", *words] for number in range(workers)
    ]


def main(words: list[str] | None = None) -> int:
    """Play plans; return 1 if one broke a promise, else 0."""
    given = arguments(words)
    alone = not possible()
    if alone:
        print(
            "chaos: it can't have namespaces here: it uses the machine's, and plays one plan at a time", file=sys.stderr
        )
    wanted = tasks(given, 1 if alone else min(given.at_once, given.plans))
    tally, codes = Tally(given.log), list[int]()
    for group in [[each] for each in wanted] if alone else [wanted]:
        codes += played(group, tally, alone)
    print(f"{tally.played} plans, {tally.bad} broke a promise")
    return 1 if tally.bad or any(codes) else 0


def played(wanted: list[list[str]], tally: Tally, alone: bool) -> list[int]:
    """Run these workers at once; return their exit codes."""
    with ExitStack() as stack:
        started = [stack.enter_context(worker([sys.executable, "-m", *task], alone)) for task in wanted]
        threads = [threading.Thread(target=tally.read, args=(process.stdout,)) for process in started]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [process.returncode for process in started]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
