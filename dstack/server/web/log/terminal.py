"""What a terminal shows of a line, as HTML: colours become classes, and what was overwritten is gone.

The sequences are those of ECMA-48: https://ecma-international.org/publications-and-standards/standards/ecma-48/
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from dstack.model.text.untrusted import clean

TOKEN = re.compile(
    r"\x1b\[(?P<args>[0-9;:]*)(?P<end>[A-Za-z@`])"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # any other control sequence
    r"|\x1b[]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?"  # a control string, such as a window's title
    r"|\x1b[ -/]*[0-~]?"
    r"|(?P<move>[\r\b])"
)
PLAIN = re.compile(r"[\r\b\x1b]")
WIDEST = 20_000
"""Columns that a program may move the cursor over."""
FLAGS = {1: "b", 2: "dim", 3: "i", 4: "u", 7: "inv", 9: "st"}
OFF = {22: ("b", "dim"), 23: ("i",), 24: ("u",), 27: ("inv",), 29: ("st",)}

Style = tuple[str, ...]


@dataclass
class Colours:
    """The colours and attributes in force, as classes: `fN` and `gN` are colour N of the 16 as text or background. Each
    can be read on the page's own background, light or dark; all other colours become the nearest of these."""

    flags: dict[str, None] = field(default_factory=dict)
    text: str = ""
    background: str = ""

    @property
    def style(self) -> Style:
        return (*self.flags, *filter(None, (self.text, self.background)))

    def apply(self, args: str) -> None:
        """Take over what a "select graphic rendition" sequence says."""
        numbers = [int(number[:3] or 0) for number in re.split("[;:]", args)]
        while numbers:
            number = numbers.pop(0)
            if number == 0:
                self.flags, self.text, self.background = {}, "", ""
            elif number in FLAGS:
                self.flags[FLAGS[number]] = None
            elif number in OFF:
                for flag in OFF[number]:
                    self.flags.pop(flag, None)
            elif number in (38, 48):
                self.set(number == 38, extended(numbers))
            elif number in (39, 49):
                self.set(number == 39, None)
            elif 30 <= number <= 37 or 90 <= number <= 97:
                self.set(True, number - 30 if number < 90 else number - 82)
            elif 40 <= number <= 47 or 100 <= number <= 107:
                self.set(False, number - 40 if number < 100 else number - 92)

    def set(self, text: bool, colour: int | None) -> None:
        name = "" if colour is None else f"{'f' if text else 'g'}{colour}"
        if text:
            self.text = name
        else:
            self.background = name


def extended(numbers: list[int]) -> int | None:
    """Take a colour of the 256, or a 24-bit one, off the front of the numbers; return the nearest of the 16."""
    kind = numbers.pop(0) if numbers else 0
    if kind == 5 and numbers:
        return of_256(min(numbers.pop(0), 255))
    if kind == 2 and len(numbers) >= 3:
        return nearest(*(min(numbers.pop(0), 255) for _ in range(3)))
    return None


def of_256(number: int) -> int:
    """Return the nearest of the 16 to one of the 256 colours: those, a cube of 6 by 6 by 6, and 24 greys."""
    if number < 16:
        return number
    if number >= 232:
        return nearest(*[8 + 10 * (number - 232)] * 3)
    cube = number - 16
    return nearest(*(51 * level for level in (cube // 36, cube // 6 % 6, cube % 6)))


def nearest(red: int, green: int, blue: int) -> int:
    """Return the colour of the 16 with the same hue, and the brighter one of the two if it is bright."""
    levels = (red, green, blue)
    strongest = max(levels)
    if strongest - min(levels) < 32:
        return 0 if strongest < 48 else 8 if strongest < 144 else 7 if strongest < 224 else 15
    hue = sum(bit for bit, level in zip((1, 2, 4), levels, strict=True) if level > strongest / 2)
    return hue + (8 if strongest > 200 else 0)


def lines_as_html(lines: list[str]) -> list[Markup]:
    """Return lines as a terminal shows them. Colours carry over from one line to the next."""
    colours = Colours()
    return [line_as_html(line, colours) for line in lines]


def line_as_html(line: str, colours: Colours) -> Markup:
    """Return one line, without its newline."""
    line = line.removesuffix("\r")
    if not PLAIN.search(line):
        return spans([(line, colours.style)])
    return spans(runs(cells(line, colours)))


def cells(line: str, colours: Colours) -> list[tuple[str, Style]]:
    """Return the characters that a terminal shows, each with its style."""
    row: list[tuple[str, Style]] = []
    column, at = 0, 0
    for token in TOKEN.finditer(line):
        column = write(row, column, line[at : token.start()], colours.style)
        at = token.end()
        if token["move"]:
            column = 0 if token["move"] == "\r" else max(0, column - 1)
        elif token["end"] == "m":
            colours.apply(token["args"])
        elif token["end"]:
            column = moved(row, column, token["end"], token["args"])
    write(row, column, line[at:], colours.style)
    return row


def write(row: list[tuple[str, Style]], column: int, text: str, style: Style) -> int:
    """Put a text into the row; return the column behind it."""
    if not text:
        return column
    row += [(" ", ())] * (column - len(row))
    row[column : column + len(text)] = [(character, style) for character in text]
    return column + len(text)


def moved(row: list[tuple[str, Style]], column: int, end: str, args: str) -> int:
    """Erase in the row, or move the cursor; return its column."""
    first = args.partition(";")[0]
    number = int(first[:6]) if first.isdecimal() else 0
    if end == "K":
        if number == 1:
            row[: column + 1] = [(" ", ())] * min(column + 1, len(row))
        else:
            del row[0 if number == 2 else column :]
        return column
    places = {"C": column + max(1, number), "D": column - max(1, number), "G": number - 1}
    return min(max(0, places.get(end, column)), WIDEST)


def runs(row: list[tuple[str, Style]]) -> list[tuple[str, Style]]:
    """Join neighbours of one style."""
    joined: list[tuple[list[str], Style]] = []
    for character, style in row:
        if joined and joined[-1][1] == style:
            joined[-1][0].append(character)
        else:
            joined.append(([character], style))
    return [("".join(characters), style) for characters, style in joined]


def spans(parts: list[tuple[str, Style]]) -> Markup:
    """Return texts with their styles as HTML."""
    made = [
        Markup('<span class="{}">{}</span>').format(" ".join(style), clean(text, WIDEST * 10))
        if style
        else escape(clean(text, WIDEST * 10))
        for text, style in parts
    ]
    return Markup("").join(made)
