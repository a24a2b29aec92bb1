"""Opens the artifact store at a URL. A new kind of store is one line here."""

from __future__ import annotations

from collections.abc import Callable

from dstack.artifacts.folder.store import FolderStore
from dstack.artifacts.s3.store import S3Store
from dstack.artifacts.store import STORAGES, ArtifactStore, Location
from dstack.errors import UsageError

STORES: dict[str, Callable[[Location], ArtifactStore]] = {
    "": FolderStore.at,
    "s3": S3Store.at,
}
"""How to open a store, by the scheme of its URL; a path has none."""


def open_store(location: Location) -> ArtifactStore:
    """Return the store at this location. Raises UsageError for one that no store can have."""
    scheme, separator, _ = location.url.partition("://")
    opened = STORES.get(scheme if separator else "")
    if opened is None:
        raise UsageError(f"'{location.url}' is not a valid storage", hint=STORAGES)
    return opened(location)
