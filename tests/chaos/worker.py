"""Plays every so many plans on one world, and writes a line of JSON for each, with all reasons that jobs showed.

`python -m tests.chaos.worker FIRST END STEP SECONDS KEEP [FAULT]...`: the plans FIRST, FIRST + STEP, ... before END,
for SECONDS. The folder KEEP gets log and database of each server that broke a promise, unless it is "". It stops early,
and cleans up, when its stdin ends.
"""

from __future__ import annotations

import _thread
import json
import signal
import sys
import threading
import time
from pathlib import Path

from tests.chaos.faults.kinds import FAULTS
from tests.chaos.plan import plan
from tests.chaos.play import play
from tests.chaos.world import World


def main(seeds: range, seconds: float, keep: str, names: list[str]) -> None:
    """Play the plans."""
    kinds = tuple(fault for fault in FAULTS if not names or fault.__name__ in names)
    last = time.monotonic() + seconds
    world = World()
    try:
        for seed in seeds:
            if time.monotonic() > last:
                break
            planned = plan(seed, kinds)
            begin = time.monotonic()
            reasons: set[str] = set()
            broken = play(world, planned, reasons=reasons, keep=Path(keep, f"plan{seed}") if keep else None)
            result = {"seed": seed, "seconds": time.monotonic() - begin, "broken": broken, "plan": str(planned)}
            result["reasons"] = sorted(reasons)
            print(json.dumps(result), flush=True)
    finally:
        world.close()


def end_with_stdin() -> None:
    """Interrupt the program when nobody holds its stdin open any longer."""
    sys.stdin.read()
    _thread.interrupt_main()


def interruptible() -> None:
    """Let Ctrl-C and the end of stdin interrupt the program."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=end_with_stdin, daemon=True).start()


if __name__ == "__main__":
    interruptible()
    numbers = [int(word) for word in sys.argv[1:4]]
    main(range(*numbers), float(sys.argv[4]), sys.argv[5], sys.argv[6:])
