"""Draws cost against size as SVG, with logarithmic axes: what costs the same at any size is a level line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 400, 70, 40, 20, 90
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")
Points = Sequence[tuple[float, float]]


class Axis:
    """Powers of ten from below the least to above the largest value, over some pixels."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        self.low = floor(log10(min(values)))
        self.high = max(ceil(log10(max(values))), self.low + 1)
        self.first, self.last = first, last

    def at(self, value: float) -> float:
        return self.first + (log10(value) - self.low) / (self.high - self.low) * (self.last - self.first)

    @property
    def ticks(self) -> list[int]:
        return list(range(self.low, self.high + 1))


def svg(title: str, size: str, unit: str, lines: Mapping[str, Points]) -> str:
    """Return a picture of lines of (size, cost). Every size and cost is above zero."""
    points = [point for line in lines.values() for point in line]
    across = Axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    up = Axis([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
        *(_grid(across, up)),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - BOTTOM + 36}" text-anchor="middle">{escape(size)}</text>',
        f'<text x="12" y="{TOP - 6}">{escape(unit)}</text>',
    ]
    for number, (name, line) in enumerate(lines.items()):
        parts += _line(name, line, across, up, number)
    return "\n".join([*parts, "</svg>", ""])


def _grid(across: Axis, up: Axis) -> list[str]:
    parts = []
    for power in across.ticks:
        x = across.at(10.0**power)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_power(power)}</text>')
    for power in up.ticks:
        y = up.at(10.0**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_power(power)}</text>')
    return parts


def _power(power: int) -> str:
    return f"{10**power:,}" if 0 <= power < 4 else f"{10.0**power:g}" if -4 < power < 0 else f"1e{power}"


def _line(name: str, line: Points, across: Axis, up: Axis, number: int) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    places = [(across.at(x), up.at(y)) for x, y in line]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    legend = (LEFT + (number % 2) * 290, HEIGHT - 34 + (number // 2) * 16)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places),
        f'<text x="{legend[0]}" y="{legend[1]}" fill="{colour}">{escape(name)}</text>',
    ]
