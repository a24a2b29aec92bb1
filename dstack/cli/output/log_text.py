"""What a terminal shows of a line of a log: the text after the last carriage return, and its colours."""

from __future__ import annotations

import re

from dstack.cli.output.cells import COLOUR, CONTROL, RESET

ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # ECMA-48, 5.4: control sequences
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # 5.6: control strings, such as a window's title
    r"|[ -/]*(?![\[\]PX^_])[0-~]"
    r"|\[[0-?]*[ -/]*$)"  # the rest has not arrived yet
)
SPECIAL = re.compile(r"[\r\b\x0e\x0f\x1b]")
MOST_COLOURS = 8
"""Codes that are remembered: a bold red on blue takes three."""


def shown(text: str, before: str = "") -> str:
    """Return the line that a terminal shows after the text, without what moves the cursor. `before` are the colour
    codes in force where it begins; those that are still in force at the end are reset."""
    if not before and not SPECIAL.search(text):
        return text
    line, before = newest(text, before)
    line = line.removeprefix("\r").split("\r")[0]
    line = ESCAPE.sub(lambda code: code.group() if COLOUR.fullmatch(code.group()) else "", line)
    line = before + _rubbed_out(line)
    return line + (RESET if colours(line) else "")


def newest(text: str, before: str = "") -> tuple[str, str]:
    """Drop what was overwritten, so that a progress bar of many hours takes no memory. Return the rest, which begins
    with a carriage return if something was dropped, and the colour codes in force where it begins."""
    states = text.split("\r")
    last = len(states) - 1
    while last > 0 and not ESCAPE.sub("", states[last]).strip():
        last -= 1
    if last == 0:
        return text, before
    return "\r" + "\r".join(states[last:]), colours("".join(states[:last]), before)


def colours(text: str, before: str = "") -> str:
    """Return the colour codes in force after the text, if those in `before` are at its beginning."""
    codes = COLOUR.findall(before)
    for code in COLOUR.findall(text) if "\x1b" in text else ():
        if not code[2:-1].strip("0;"):
            codes.clear()
        elif code not in codes[-1:]:
            codes.append(code)
    return "".join(codes[-MOST_COLOURS:])


def _rubbed_out(text: str) -> str:
    """Apply backspaces, and leave out the other control characters."""
    if "\b" in text:
        kept: list[str] = []
        for character in text:
            if character != "\b":
                kept.append(character)
            elif kept:
                kept.pop()
        text = "".join(kept)
    return "\t".join(CONTROL.sub("", part) for part in text.split("\t"))
