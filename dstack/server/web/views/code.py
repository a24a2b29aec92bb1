"""What a run's code changes compared to its commit, as lines that tell what they are."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST = 512 * 1024
"""Bytes of a patch that a page shows."""
WIDEST = 2000
"""Characters of a line that it shows."""
KINDS = {"+": "add", "-": "del", "@": "hunk", " ": "same"}


@dataclass(frozen=True)
class PatchFile:
    """The changes of one file: lines, each with its kind. `added` and `removed` count lines."""

    name: str
    lines: list[tuple[str, str]]
    added: int
    removed: int


@dataclass(frozen=True)
class Patch:
    files: list[PatchFile]
    size: int
    cut: bool


def patch_of(data: bytes) -> Patch:
    """Read a patch as `git diff` writes it."""
    shown = data[:LARGEST].decode(errors="replace")
    files = [file_of(text) for text in ("\n" + shown).split("\ndiff --git ")[1:]]
    return Patch(files, len(data), len(data) > LARGEST)


def file_of(text: str) -> PatchFile:
    """Read what a patch says about one file, from its name on."""
    name, _, rest = text.partition("\n")
    lines: list[tuple[str, str]] = []
    inside = False
    for line in rest.split("\n"):
        inside = inside or line.startswith("@@")
        kind = KINDS.get(line[:1], "meta") if inside else "meta"
        lines.append((kind, line if len(line) <= WIDEST else f"{line[:WIDEST]}…"))
    if lines and not lines[-1][1]:
        lines.pop()
    kinds = [kind for kind, _ in lines]
    return PatchFile(name.partition(" b/")[2] or name, lines, kinds.count("add"), kinds.count("del"))
