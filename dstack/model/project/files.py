"""The names of a project's files."""

from __future__ import annotations

from collections.abc import Collection

from dstack.errors import UsageError

FOLDER = ".dstack"
WORKFLOWS = ("workflows.yaml", "workflows.yml")
CONFIGS = ("configs.yaml", "configs.yml", "config.yaml", "config.yml")


def only(names: tuple[str, ...], there: Collection[str]) -> str | None:
    """Return which of a file's names is there, None for none. Raises UsageError for several."""
    found = [f"{FOLDER}/{name}" for name in names if name in there]
    if len(found) > 1:
        raise UsageError(
            f"both {found[0]} and {found[1]} exist; only one is allowed",
            hint=f"move everything into {found[0]} and remove the other file",
        )
    return found[0] if found else None
