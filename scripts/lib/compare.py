#!/usr/bin/env python3
"""Compare commands by the time to their first line on stdout, or to their end if they print nothing.

    compare.py ROUNDS NAME COMMAND NAME COMMAND...

The commands take turns, so that a busy moment affects all of them. Prints the median and the best time of each in
milliseconds, and the ratio of its median to that of the last command. Standard library only.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import time


def first_line(command: list[str]) -> float:
    """Return the seconds from the start of the command to its first line, and wait for its end."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - begin
        _, said = process.communicate()
    if process.returncode != 0:
        sys.exit(f"compare.py: {shlex.join(command)} exits with {process.returncode}: {said.decode(errors='replace')}")
    return seconds


def main() -> None:
    if len(sys.argv) < 4 or len(sys.argv) % 2:
        sys.exit(__doc__)
    commands = {name: shlex.split(line) for name, line in zip(sys.argv[2::2], sys.argv[3::2], strict=True)}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        first_line(command)  # warm up
    for _ in range(int(sys.argv[1])):
        for name, command in commands.items():
            times[name].append(first_line(command))
    *_, reference = times.values()
    for name, taken in times.items():
        ratio = statistics.median(taken) / statistics.median(reference)
        print(f"{name:<40}{statistics.median(taken) * 1000:8.0f} ms   best{min(taken) * 1000:6.0f}   x{ratio:.2f}")


if __name__ == "__main__":
    main()
