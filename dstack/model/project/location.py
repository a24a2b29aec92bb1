"""Paths that a workflow names inside the project's folder."""

from __future__ import annotations


def normal(path: str) -> str:
    """Return the path without `./` and without doubled or trailing slashes; "" for the folder itself."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def trouble(path: str) -> str | None:
    """Why the path is not valid inside the project's folder, as the end of a sentence; None if it is."""
    parts = normal(path).split("/")
    if not path.strip():
        return "is empty; write a path inside the project's folder"
    if path.startswith("/"):
        return f"is the absolute path '{path}'; write a path inside the project's folder"
    if ".." in parts:
        return f"contains '..': '{path}'; write a path inside the project's folder"
    if ".git" in parts:
        return f"is '{path}', but .git is not part of the project's files; remove this entry"
    if parts[0] == ".dstack":
        return f"is '{path}', but .dstack is for dstack's own files; remove this entry"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "contains a control character; remove it"
    return None


def artifact_trouble(path: str) -> str | None:
    """Why the path is not valid for an artifact, as the end of a sentence; None if it is."""
    if not normal(path) and path.strip() and not path.startswith("/"):
        return "is the whole project; name a file or folder in it"
    return trouble(path)


def overlap(paths: list[str]) -> tuple[int, int] | None:
    """Return the indexes of two paths that are equal or nested, the later one first; None if there are none."""
    folders = [f"{normal(path)}/" for path in paths]
    for later, path in enumerate(folders):
        for earlier, other in enumerate(folders[:later]):
            if path.startswith(other) or other.startswith(path):
                return later, earlier
    return None


def pattern_trouble(path: str) -> str | None:
    """Why an artifact, as written, is a pattern, as the end of a sentence; None if it is not."""
    if "*" in path or "?" in path:
        return f"is the pattern '{path}'; name the folder that contains the files"
    return None
