"""From a submission to jobs: the graph, the cache keys, and what comes from the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from dstack.errors import UsageError
from dstack.model import cachekey, names, script
from dstack.model.api.runs import Submission
from dstack.model.graph import closure
from dstack.model.job import Job
from dstack.model.resources import with_gpus
from dstack.model.selection import TreeFile, select
from dstack.model.status import Status
from dstack.model.tag import MARK, is_tag
from dstack.model.workflow import Workflow
from dstack.store import Store

NAMED = "it was named, so it runs"


@dataclass
class Planner:
    """Decides what a submission runs.

    `files` are those of the snapshot's tree, `run` is the name that the run will have, `damage` says what keeps a done
    job's artifacts from being used again. After `plan`, `components` tells what each key is made of, and `warnings`
    are for the user.
    """

    store: Store
    files: list[TreeFile]
    run: str
    now: str
    damage: Callable[[Job], str | None]
    components: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def plan(self, submission: Submission) -> list[Job]:
        """The jobs of the run, dependencies first: the named workflow and those of its dependencies whose results are
        needed, each from the cache where something fits. Raises UsageError for what can't be."""
        candidates: dict[str, Job] = {}
        for workflow in closure(submission.workflows, submission.workflow):
            candidates[workflow.name] = self.candidate(submission, workflow, candidates)
        needed = self.needed(submission.workflow, candidates)
        return [self.connected(job, candidates) for name, job in candidates.items() if name in needed]

    def candidate(self, submission: Submission, workflow: Workflow, before: dict[str, Job]) -> Job:
        """The job of a workflow, with its cache key, and its source if the cache has it."""
        variables = submission.variables[workflow.name]
        job_id = names.job_id()
        expanded = script.expanded(workflow, variables, {"run_name": self.run, "job_id": job_id})
        if submission.gpus is not None and workflow.name == submission.workflow:
            expanded = replace(expanded, resources=with_gpus(expanded.resources, submission.gpus))
        keys = {name: before[name].key for name in workflow.depends_on.names}
        keys |= {name: self.tagged(name).source for name in workflow.depends_on.workflows if is_tag(name)}
        files = self.selected(submission, expanded)
        components = cachekey.components(workflow, expanded.image, files, variables, keys)
        key = cachekey.key(components)
        self.components[key] = components
        job = Job(
            id=job_id,
            run=self.run,
            workflow=workflow.name,
            definition=expanded,
            variables=variables,
            image=expanded.image,
            key=key,
            why=NAMED,
            submitted_at=self.now,
            priority=workflow.priority if submission.priority is None else submission.priority,
        )
        return self.named(job, submission) if workflow.name == submission.workflow else self.looked_up(job, submission)

    def selected(self, submission: Submission, workflow: Workflow) -> list[TreeFile]:
        """The files that a workflow depends on."""
        include = workflow.depends_on.repo.include if workflow.depends_on.repo else None
        files, unmatched = select(self.files, submission.snapshot.project, include)
        self.warnings += [f"{workflow.name}: depends-on.repo.include: '{name}' names no file" for name in unmatched]
        return files

    def named(self, job: Job, submission: Submission) -> Job:
        """The workflow that the user named always runs; it is said what changed all the same."""
        last = self.store.jobs.last_done(job.workflow, submission.snapshot.repo)
        changed = self.difference(last, job) if last else None
        return replace(job, why=f"{NAMED} ({changed})" if changed else NAMED)

    def looked_up(self, job: Job, submission: Submission) -> Job:
        """The job with the result that fits, or with why there is none."""
        if submission.no_cache:
            return replace(job, why="--no-cache")
        damage = None
        for source in self.store.jobs.done_with(job.key):
            found = self.damage(source)
            if found is None:
                return self.cached(job, source)
            damage = damage or found  # of the newest
        for other in reversed(self.store.jobs.unfinished()):
            if other.key == job.key and other.shares is None and not other.stop:
                return replace(job, shares=other.id, why=f"the same job is under way in {other.run}")
        return replace(job, why=damage or self.why_not(job, submission))

    def cached(self, job: Job, source: Job) -> Job:
        """The job with the result of another one."""
        return replace(
            job,
            why=f"nothing changed since {self.store.jobs.known_as(source) or source.run}",
            status=Status.DONE,
            cached_from=source.id,
            exit_code=0,
            image_digest=source.image_digest,
            finished_at=self.now,
            files=source.files,
            bytes=source.bytes,
        )

    def why_not(self, job: Job, submission: Submission) -> str:
        last = self.store.jobs.last_done(job.workflow, submission.snapshot.repo)
        if last is None:
            return "it has not run before"
        return self.difference(last, job) or "its result is no longer stored"

    def difference(self, last: Job, job: Job) -> str | None:
        """The first thing that changed between two jobs of a workflow."""
        return cachekey.difference(self.store.keys.components(last.key), self.components[job.key])

    def needed(self, name: str, candidates: dict[str, Job]) -> set[str]:
        """The named workflow, and what is needed to run whatever does not come from the cache."""
        needed = {name}
        if candidates[name].cached_from is None:
            for dependency in candidates[name].definition.depends_on.names:
                needed |= self.needed(dependency, candidates)
        return needed

    def connected(self, job: Job, candidates: dict[str, Job]) -> Job:
        """The job with the ids of those whose artifacts it gets."""
        sources = {
            name: self.tagged(name).source if is_tag(name) else candidates[name].source
            for name in job.definition.depends_on.workflows
        }
        return replace(job, dependencies=sources)

    def tagged(self, ref: str) -> Job:
        """The job whose artifacts `:NAME` stands for. Raises UsageError where there are none to be had."""
        tag = self.store.tags.get(ref.removeprefix(MARK))
        if tag is None:
            raise UsageError(f"no tag '{ref}'", hint=f"dstack tag RUN {ref.removeprefix(MARK)}")
        job = self.store.jobs.require(tag.job)
        if job.status is not Status.DONE:
            raise UsageError(f"{ref} is {job.workflow} of {job.run}, which is {job.status.value}", hint="dstack tag")
        return job
