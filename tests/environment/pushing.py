"""Images in a test registry that no machine has pulled yet."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.environment.registry import PASSWORD, USER, Registry

BIG = 6_000_000
"""The size in bytes of a layer that takes a while over a slow connection."""


def push(docker: Sequence[str], registry: Registry, base: str, name: str, *, size: int = 0) -> str:
    """Push `base` with an extra layer of random bytes to the registry, and keep no local copy. Return its full name."""
    image = f"{registry.address}/{name}"
    with tempfile.TemporaryDirectory() as folder:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (Path(folder) / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": login}}}))
        if size:
            (Path(folder) / "filler").write_bytes(os.urandom(size))
            container = _run([*docker, "create", base, "true"])
            _run([*docker, "cp", f"{folder}/filler", f"{container}:/filler"])
            _run([*docker, "commit", container, image])
            _run([*docker, "rm", container])
        else:
            _run([*docker, "tag", base, image])
        _run([docker[0], "--config", folder, *docker[1:], "push", "-q", image])
    _run([*docker, "rmi", image])
    return image


def _run(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout.strip()
