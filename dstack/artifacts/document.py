"""The text of manifest.json: one file per line, bytes that are not UTF-8 as escapes."""

from __future__ import annotations

import json

import msgspec

from dstack.model.job.manifest import Manifest
from dstack.model.job.tree import problem


def encode(manifest: Manifest) -> bytes:
    """Return the text. msgspec's own encoder refuses surrogate escapes, which stand for bytes that are not UTF-8."""
    head = msgspec.to_builtins(manifest)
    files = head.pop("files")
    lines = ",\n".join(json.dumps(file) for file in files)
    return f'{json.dumps(head)[:-1]}, "files": [\n{lines}\n]}}\n'.encode("ascii")


def decode(document: bytes) -> Manifest:
    """Return the manifest. Raises ValueError if the text is not a manifest, or contains paths that none may have."""
    manifest = msgspec.convert(json.loads(document), Manifest)
    if why := problem(manifest.files):
        raise ValueError(why)
    return manifest
