"""Numbers and names as programs print them."""

from __future__ import annotations

import re

NUMBER = r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[nN][aA][nN]|(?i:inf(?:inity)?))"
LONGEST_NAME = 100
NAME = r"^[A-Za-z_][A-Za-z0-9_./@-]{0,99}$(?!\n)"
"""A metric's name."""
UNNAMEABLE = re.compile(r"[^A-Za-z0-9_./@-]+")
STEPS = ("step", "global_step", "iter", "iteration", "round", "epoch")
"""What counts the steps of a training, in lower case; the earlier one counts if a line has several."""


def number(text: str) -> float | None:
    """Return the number that a text is, None if it is none. `nan` and `inf` are numbers."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def name_of(text: str) -> str:
    """Return a printed name as a metric's name: `train loss` becomes `train_loss`. It may become empty."""
    name = text if text.isidentifier() and text.isascii() else UNNAMEABLE.sub("_", text.strip())
    name = name.strip("./-@")
    return name[:LONGEST_NAME] if not name[:1].isdigit() else f"_{name}"[:LONGEST_NAME]
