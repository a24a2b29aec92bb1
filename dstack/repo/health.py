"""Notices packs of a mirror that are not what they were when they arrived, and takes them out."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from dstack.repo.git import Git

log = logging.getLogger("dstack.repo")

Stamp = tuple[int, int, int]


class Health:
    """Remembers each file of a pack by size, time and inode. Only the holder of the mirror's lock may use it."""

    def __init__(self, mirror: Path) -> None:
        self.mirror = mirror
        self.packs = mirror / "objects/pack"
        self.file = mirror / "known-packs"

    def look(self) -> bool:
        """Read again, object by object, what was touched since it arrived, and remove what is damaged. Whether
        something was."""
        if not self.packs.is_dir():
            return False
        known = self._known()
        suspects = {Path(name).stem for name, stamp in self._stamps().items() if known.get(name) != stamp}
        suspects |= {Path(name).stem for name in known if not (self.packs / name).exists()}
        found = [self._verify(stem) for stem in suspects]
        if suspects:
            self.remember()
        return not all(found)

    def look_at_all(self) -> bool:
        """Read everything again. Whether something was damaged, and is gone now."""
        found = [self._verify(pack.stem) for pack in list(self.packs.glob("*.pack"))]
        self.remember()
        return not all(found)

    def remember(self) -> None:
        """All packs are right as they are now."""
        aside = self.file.with_name("known-packs.new")
        aside.write_bytes(msgspec.json.encode(self._stamps()))
        aside.replace(self.file)

    def _verify(self, stem: str) -> bool:
        index = self.packs / f"{stem}.idx"
        if index.exists() and Git.within(self.mirror).succeeds("verify-pack", str(index)):
            return True
        log.warning("%s: the pack %s is damaged and was removed", self.mirror, stem)
        for part in self.packs.glob(f"{stem}.*"):
            part.unlink()
        return False

    def _known(self) -> dict[str, Stamp]:
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=dict[str, Stamp])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}

    def _stamps(self) -> dict[str, Stamp]:
        found = {}
        for path in self.packs.iterdir():
            if path.suffix in (".pack", ".idx"):
                about = path.stat()
                found[path.name] = (about.st_size, about.st_mtime_ns, about.st_ino)
        return found
