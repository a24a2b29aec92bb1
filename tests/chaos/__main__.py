"""`scripts/chaos`: play random plans until the time is up, and say which promise was broken by which plan."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tests.chaos.faults import FAULTS
from tests.chaos.plan import plan
from tests.chaos.play import play
from tests.chaos.world import World


def main() -> None:
    """Play plans; exit with 1 if one broke a promise."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="number of the first plan; default: 1")
    parser.add_argument("--minutes", type=float, default=5, help="begin no plan after this time; default: 5")
    parser.add_argument("--plans", type=int, help="play at most so many plans")
    parser.add_argument("--fault", action="append", help="use only faults with this name; repeatable")
    arguments = parser.parse_args()
    names = {fault.__name__: fault for fault in FAULTS}
    if unknown := set(arguments.fault or ()) - set(names):
        parser.error(f"no fault {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    kinds = tuple(names[name] for name in arguments.fault) if arguments.fault else FAULTS
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end = time.monotonic() + 60 * arguments.minutes
    seed, bad = arguments.seed, 0
    world = World()
    try:
        while time.monotonic() < end and (arguments.plans is None or seed < arguments.seed + arguments.plans):
            planned = plan(seed, kinds)
            begin = time.monotonic()
            broken = play(world, planned)
            print(f"plan {seed}: {'ok' if not broken else 'BROKEN'} ({time.monotonic() - begin:.1f} s)", flush=True)
            if broken:
                bad += 1
                print(planned)
                print("\n".join(f"  -> {line}" for line in broken), flush=True)
            seed += 1
    finally:
        world.close()
    print(f"{seed - arguments.seed} plans, {bad} broke a promise")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
