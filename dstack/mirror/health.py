"""Detects and removes damaged packs in a mirror."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import msgspec

from dstack.plumbing.git import write_file

log = logging.getLogger("dstack.mirror")

Stamp = tuple[int, int, int]

BLOCK = 1 << 20


class Health:
    """Remembers the size, time and inode of each pack file. Callers must hold the mirror's lock."""

    def __init__(self, mirror: Path) -> None:
        self.mirror = mirror
        self.packs = mirror / "objects/pack"
        self.file = mirror / "known-packs"

    def look(self, *, everything: bool = False) -> bool:
        """Verify packs that were touched since they arrived, or all packs. Remove damaged packs, and return whether
        there were any. Raises OSError for one that can't be read now, which need not be damaged."""
        if not self.packs.is_dir():
            return False
        now, known = self._stamps(), {} if everything else self._known()
        suspects = {Path(name).stem for name in now.keys() | known.keys() if now.get(name) != known.get(name)}
        intact = [self._verify(stem) for stem in suspects]
        if suspects:
            self.remember()
        return not all(intact)

    def remember(self) -> None:
        """Record the current state of all packs as good."""
        write_file(self.file, msgspec.json.encode(self._stamps()).decode())

    def _verify(self, stem: str) -> bool:
        if self._intact(self.packs / f"{stem}.pack", self.packs / f"{stem}.idx"):
            return True
        log.warning("%s: removed the damaged pack %s; its code must be sent again", self.mirror, stem)
        for part in self.packs.glob(f"{stem}.*"):
            part.unlink()
        return False

    def _intact(self, pack: Path, index: Path) -> bool:
        """Whether a pack and its index have the checksums that they end with (gitformat-pack(5)). git itself does not
        tell a damaged file from one that it could not read for want of memory or file descriptors."""
        try:
            return any(_match(pack, index, algorithm) for algorithm in ("sha1", "sha256"))
        except FileNotFoundError:
            return False

    def _known(self) -> dict[str, Stamp]:
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=dict[str, Stamp])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}

    def _stamps(self) -> dict[str, Stamp]:
        files = [path for path in self.packs.iterdir() if path.suffix in (".pack", ".idx")]
        about = {path.name: path.stat() for path in files}
        return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in about.items()}


def _match(pack: Path, index: Path, algorithm: str) -> bool:
    packed, indexed = _Sealed(pack, algorithm), _Sealed(index, algorithm)
    return packed.intact and indexed.intact and indexed.body_end == packed.seal


class _Sealed:
    """A file whose last bytes, its `seal`, are the checksum of the others. `body_end` are as many bytes before it."""

    def __init__(self, path: Path, algorithm: str) -> None:
        checksum = hashlib.new(algorithm, usedforsecurity=False)
        size = checksum.digest_size
        with path.open("rb") as file:
            left = path.stat().st_size - size
            while left > 0 and (block := file.read(min(BLOCK, left))):
                checksum.update(block)
                left -= len(block)
            file.seek(-min(2 * size, path.stat().st_size), os.SEEK_END)
            end = file.read()
        self.body_end, self.seal = end[:-size], end[-size:]
        self.intact = checksum.digest() == self.seal
