"""Paths that a workflow names inside the project's folder."""

from __future__ import annotations


def normal(path: str) -> str:
    """The path without `./`, doubled and trailing slashes; "" for the folder itself."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def trouble(path: str) -> str | None:
    """Why the path can't be one inside the project's folder, as the end of a sentence; None if it can."""
    parts = normal(path).split("/")
    if not path.strip():
        return "is empty"
    if path.startswith("/"):
        return f"is the absolute path '{path}': name one inside the project's folder"
    if ".." in parts:
        return f"holds '..' in '{path}': name a path inside the project's folder"
    if ".git" in parts:
        return f"names '{path}': .git is not part of the project's files"
    if parts[0] == ".dstack":
        return f"names '{path}': .dstack holds dstack's own files"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "holds a control character"
    return None


def artifact_trouble(path: str) -> str | None:
    """Why the path can't be an artifact's, as the end of a sentence; None if it can."""
    if not normal(path) and path.strip() and not path.startswith("/"):
        return "is the whole project: name a file or folder in it"
    return trouble(path)


def overlap(paths: list[str]) -> tuple[int, int] | None:
    """The places of two paths that are equal or lie one in the other, the later one first; None if no two do."""
    whole = [f"{normal(path)}/" for path in paths]
    for later, path in enumerate(whole):
        for earlier, other in enumerate(whole[:later]):
            if path.startswith(other) or other.startswith(path):
                return later, earlier
    return None


def pattern_trouble(path: str) -> str | None:
    """Why an artifact as its author wrote it looks like a pattern, as the end of a sentence; None if it does not."""
    if "*" in path or "?" in path:
        return f"is the pattern '{path}': name the folder that holds the files"
    return None
