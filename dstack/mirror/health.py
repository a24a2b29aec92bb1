"""Detects and removes damaged packs in a mirror."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from dstack.plumbing.git import Git, write_file

log = logging.getLogger("dstack.mirror")

Stamp = tuple[int, int, int]


class Health:
    """Remembers the size, time and inode of each pack file. Callers must hold the mirror's lock."""

    def __init__(self, mirror: Path) -> None:
        self.mirror = mirror
        self.packs = mirror / "objects/pack"
        self.file = mirror / "known-packs"

    def look(self, *, everything: bool = False) -> bool:
        """Verify every object of packs that were touched since they arrived, or of all packs. Remove damaged packs, and
        return whether there were any."""
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
        index = self.packs / f"{stem}.idx"
        if index.exists() and Git.within(self.mirror).succeeds("verify-pack", str(index)):
            return True
        log.warning("%s: removed the damaged pack %s; its code must be sent again", self.mirror, stem)
        for part in self.packs.glob(f"{stem}.*"):
            part.unlink()
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
