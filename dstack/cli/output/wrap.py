"""Breaks long sentences between words, and keeps what is there to be copied in one piece."""

from __future__ import annotations

import re
import textwrap

NARROWEST = 20
COPIED = re.compile(r"`[^`]*`|(?<!\w)'[^']*'(?!\w)|(?<=: )(?:dstack|docker|git|printf|ssh|ssh-add|ssh-keygen|sudo) .*")
"""A command or a name with spaces in it: a line end inside would be copied, too."""
ADVICE = re.compile(r" *(hint|fix|next): ")
JOINED = "\0"


def wrap(text: str, width: int) -> list[str]:
    """Return the lines of one line of text; a word that is wider than `width` cells has a line of its own."""
    joined = COPIED.sub(lambda found: found[0].replace(" ", JOINED), text)
    lines = textwrap.wrap(joined, max(width, NARROWEST), break_long_words=False, break_on_hyphens=False)
    return [line.replace(JOINED, " ") for line in lines]


def paragraph(text: str, width: int) -> str:
    """Return sentences in lines of at most `width` cells. What advises a command stays as it is, for the terminal to
    wrap: it is there to be copied."""
    lines = ([line] if ADVICE.match(line) else wrap(line, width) or [""] for line in text.split("\n"))
    return "\n".join(part for parts in lines for part in parts)
