"""Sets and deletes tags."""

from __future__ import annotations

import time

from dstack.errors import ConflictError, NotFoundError, UsageError
from dstack.model.api.artifacts import TagRequest, TagView
from dstack.model.text.tag import name_of
from dstack.model.text.units import rfc3339
from dstack.store.lookup import jobs_named
from dstack.store.store import Store


def set_tag(store: Store, wish: TagRequest) -> TagView:
    """Tag a job. Tagging a run tags the job of the workflow that the user named."""
    name = name_of(wish.name)
    run, jobs, whole = jobs_named(store, wish.ref)
    job = next((job for job in jobs if job.workflow == run.workflow), None) if whole else jobs[0]
    if job is None:
        raise UsageError(f"{run.name} has no job of {run.workflow}")
    taken = store.tags.get(name)
    if taken and taken.job != job.id and not wish.force:
        hint = f"to move it: dstack tag {wish.ref} {name} --force"
        raise ConflictError(f"the tag ':{name}' already names {taken.run}", hint=hint)
    tag = TagView(name=name, run=run.name, job=job.id, workflow=job.workflow, created_at=rfc3339(time.time()))
    store.tags.set(tag)
    return tag


def delete_tag(store: Store, name: str) -> None:
    """Delete a tag. Raises NotFoundError if there is none of that name."""
    if not store.tags.delete(name):
        raise NotFoundError(f"no tag ':{name}'", hint="see `dstack tag`")
