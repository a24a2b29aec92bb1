"""Text and numbers that machines report: made fit to be stored and shown, whatever they are."""

from __future__ import annotations

import re

LONGEST = 64 * 1024
"""Characters of one value."""
MESSAGE = 4000
"""Characters of a message."""
NAME = 200
"""Characters of a name or a version."""

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
"""What changes a terminal's colours, title or keys (xterm's ctlseqs)."""
_CONTROL = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
"""Control characters but newline and tab, what changes the direction of text, and halves of surrogate pairs."""
_WHOLE = re.compile(r"[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,30})?")


def clean(text: bytes | str, most: int = LONGEST) -> str:
    """Return the text without commands to the terminal. Bytes that are not UTF-8 and other control characters become
    U+FFFD, a carriage return becomes a newline, and what is longer than `most` characters is cut."""
    if isinstance(text, bytes):
        text = text[: 4 * most].decode(errors="replace")
    if not (text.isascii() and text.isprintable()):
        text = re.sub("\r\n?", "\n", _SEQUENCE.sub("", text[: 4 * most]))
        text = _CONTROL.sub("\ufffd", text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def clean_line(text: bytes | str, most: int = LONGEST) -> str:
    """Return the text as `clean` does, in one line."""
    return clean(text, most).replace("\n", " ")


def shorten(text: str, most: int) -> str:
    """Return the text without its middle if it is longer than `most` characters: messages end with what to do."""
    return text if len(text) <= most else f"{text[: most * 2 // 3 - 5]} ... {text[len(text) - most // 3 :]}"


def whole(text: str) -> int:
    """Read a number that is not negative and has at most 15 digits: in KiB, its bytes fit into 64 bits. Raises
    ValueError for anything else."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:NAME]!r} is not a number of up to 15 digits")
    return int(text)


def decimal(text: str) -> float:
    """Read a number that is not negative, without an exponent, with at most 15 digits before its point. Raises
    ValueError for anything else."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:NAME]!r} is not a number of up to 15 digits")
    return float(text)
