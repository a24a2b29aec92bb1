"""Naming results."""

from __future__ import annotations

import time

from dstack.errors import ConflictError, NotFoundError, UsageError
from dstack.model.api.artifacts import TagRequest, TagView
from dstack.model.tag import name_of
from dstack.model.times import rfc3339
from dstack.server.lookup import jobs_named
from dstack.store import Store


def set_tag(store: Store, wish: TagRequest) -> TagView:
    """Name a run, which means the job of the workflow that was named, or a job."""
    name = name_of(wish.name)
    run, jobs, whole = jobs_named(store, wish.ref)
    job = next((job for job in jobs if job.workflow == run.workflow), None) if whole else jobs[0]
    if job is None:
        raise UsageError(f"{run.name} has no job of {run.workflow}")
    taken = store.tags.get(name)
    if taken and taken.job != job.id and not wish.force:
        raise ConflictError(f"':{name}' is {taken.run} already", hint="--force takes the name from it")
    tag = TagView(name=name, run=run.name, job=job.id, workflow=job.workflow, created_at=rfc3339(time.time()))
    store.tags.set(tag)
    return tag


def delete_tag(store: Store, name: str) -> None:
    """Take a name away. Raises NotFoundError where there is none."""
    if not store.tags.delete(name):
        raise NotFoundError(f"no tag ':{name}'", hint="see `dstack tag`")
