"""Artifacts, in the API and in `--json`."""

from __future__ import annotations

from msgspec import Struct


class ArtifactView(Struct, kw_only=True, omit_defaults=True):
    """One stored file. `path` is relative to the project's folder; `link` is the target of a symbolic link; `partial`
    means that its job had not ended."""

    job: str
    workflow: str
    path: str
    size: int
    mode: int
    sha256: str
    link: str | None = None
    partial: bool = False


class FolderView(Struct, kw_only=True):
    """A folder of an artifact, empty or not. `mode` has the permission bits, setgid and the sticky bit."""

    job: str
    workflow: str
    path: str
    mode: int


class LinkView(Struct, kw_only=True):
    """A URL where anyone can read a file until `expires_at`."""

    url: str
    expires_at: str


class LinksRequest(Struct, kw_only=True):
    """The body of `POST /artifacts/JOB/urls`: files of the job."""

    paths: tuple[str, ...]


class LinksView(Struct, kw_only=True):
    """URLs for the files, in the order requested, valid until `expires_at`. Empty if the storage has no URLs."""

    urls: list[str]
    expires_at: str


class TagRequest(Struct, kw_only=True):
    """The body of `POST /tags`. `ref` is a run or a job; `force` moves a name that is already used."""

    ref: str
    name: str
    force: bool = False


class TagView(Struct, kw_only=True):
    """A tag: a name for a job's result."""

    name: str
    run: str
    job: str
    workflow: str
    created_at: str
