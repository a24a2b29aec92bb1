"""Compare dstack with what a person would type instead, and with other projects, on this machine. See --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import growth
import plot
from rows import code, data, machines, start, states
from table import Result, as_json, lines, measured
from world import World, ending

ROWS = [*start.ROWS, *code.ROWS, *data.ROWS, *machines.ROWS, *states.ROWS]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/bench", description=__doc__)
    parser.add_argument("--only", metavar="ROW", action="append", help="measure only this row; repeatable")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds of each row; default: 7")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results as JSON")
    parser.add_argument("--small", action="store_true", help="small sizes, to try it out")
    parser.add_argument("--list", action="store_true", help="list the rows, measure nothing")
    parser.add_argument("--plot", metavar="FOLDER", type=Path, help="draw cost against size as SVG instead")
    parser.add_argument("--world", nargs=6, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = {row.name for row in ROWS}
    if unknown := [name for name in asked.only or () if name not in names | set(growth.CURVES)]:
        parser.error(f"there is no row '{unknown[0]}'; the rows are {', '.join(sorted(names))}")
    return asked


def table(asked: argparse.Namespace, world: World) -> list[Result]:
    """Measure the rows, and print each as soon as it is."""
    results = []
    for row in ROWS:
        if not asked.only or row.name in asked.only:
            results.append(measured(row, world, asked.rounds))
            print("\n".join(lines(results[-1])), flush=True)
    return results


def curves(asked: argparse.Namespace, world: World) -> None:
    asked.plot.mkdir(parents=True, exist_ok=True)
    for name, curve in growth.CURVES.items():
        if not asked.only or name in asked.only:
            lines = curve.measure(world)
            (asked.plot / f"{name}.svg").write_text(plot.svg(curve.title, curve.size, curve.unit, lines))
            print(f"{name}: " + "; ".join(f"{line}: {points}" for line, points in lines.items()), flush=True)


def main() -> None:
    asked = arguments()
    if asked.list:
        print("\n".join(f"{row.name:<14} {row.what}, against {row.against}; target {row.target}" for row in ROWS))
        return
    if asked.world is None:
        sys.exit("start it with scripts/bench, which starts Docker and an SSH server")
    work, user, port, image, fingerprint, docker = asked.world
    with ending(World(Path(work), user, int(port), image, fingerprint, tuple(docker.split()), asked.small)) as world:
        if asked.plot:
            curves(asked, world)
            return
        results = table(asked, world)
    if asked.json:
        asked.json.write_text(as_json(results) + "\n")


if __name__ == "__main__":
    main()
