"""What jobs made, on the wire and in `--json`."""

from __future__ import annotations

from msgspec import Struct


class ArtifactView(Struct, kw_only=True, omit_defaults=True):
    """One stored file. `path` is relative to the project's folder; `link` the target of a symbolic link; `partial`: it
    is from a job that had not ended."""

    job: str
    workflow: str
    path: str
    size: int
    mode: int
    sha256: str
    link: str | None = None
    partial: bool = False


class LinkView(Struct, kw_only=True):
    """Where anybody can read a file until `expires_at`."""

    url: str
    expires_at: str


class LinksRequest(Struct, kw_only=True):
    """The body of `POST /artifacts/JOB/urls`: files of the job."""

    paths: tuple[str, ...]


class LinksView(Struct, kw_only=True):
    """Where the files can be read until `expires_at`, in their order; no `urls` where the storage gives none."""

    urls: list[str]
    expires_at: str


class TagRequest(Struct, kw_only=True):
    """The body of `POST /tags`. `ref` is a run or a job; `force` takes the name from another."""

    ref: str
    name: str
    force: bool = False


class TagView(Struct, kw_only=True):
    """A name that was given to a job's result."""

    name: str
    run: str
    job: str
    workflow: str
    created_at: str
