"""Turns a submission into jobs: the graph, the cache keys, and what comes from the cache."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from dstack.engine.admission import result_of
from dstack.errors import UsageError
from dstack.model.api.runs import Submission
from dstack.model.code.selection import select, unmatched_warnings
from dstack.model.code.tree import TreeFile
from dstack.model.job import cache_key, names, script
from dstack.model.job.job import Job
from dstack.model.job.resources import with_gpus
from dstack.model.job.status import Status
from dstack.model.project.artifact_links import inside, refuse_links
from dstack.model.project.graph import closure
from dstack.model.project.workflow import Workflow
from dstack.model.text.tag import MARK, is_tag
from dstack.store.store import Store

NAMED = "requested by name, so it always runs"


@dataclass
class Planner:
    """Decides what a submission runs. `files` are the files in the snapshot's tree, `run` is the name of the new run,
    and `damages` says why a done job's artifacts can't be reused, or None. `plan` fills `unverified`, the jobs that it
    reused but `damages` does not mention, `components`, the parts of each cache key, `warnings` for the user, and
    `links`, the project's symbolic links."""

    store: Store
    files: list[TreeFile]
    run: str
    now: str
    damages: dict[str, str | None]
    unverified: list[Job] = field(default_factory=list)
    components: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    links: frozenset[str] = frozenset()

    def plan(self, submission: Submission) -> list[Job]:
        """Return the jobs of the run, dependencies first: the named workflow and the dependencies whose results it
        needs, each from the cache if possible. Raises UsageError if the submission is invalid."""
        candidates: dict[str, Job] = {}
        self.links = inside((file.path for file in self.files if file.is_link), submission.snapshot.project)
        for workflow in closure(submission.workflows, submission.workflow):
            candidates[workflow.name] = self.candidate(submission, workflow, candidates)
        needed = self.needed(submission.workflow, candidates)
        return [self.connected(job, candidates) for name, job in candidates.items() if name in needed]

    def candidate(self, submission: Submission, workflow: Workflow, before: dict[str, Job]) -> Job:
        """Return the job of a workflow with its cache key, and with its result if that is cached."""
        variables = submission.variables[workflow.name]
        job_id = names.job_id()
        expanded = script.expanded(workflow, variables, job_id, self.run)
        script.check_environment(workflow, variables, submission.environment, job_id, self.run)
        if submission.gpus is not None and workflow.name == submission.workflow:
            expanded = replace(expanded, resources=with_gpus(expanded.resources, submission.gpus))
        refuse_links(expanded, [before[name].definition for name in workflow.needs.names], self.links)
        keys = {name: before[name].key for name in workflow.needs.names}
        keys |= {name: self.tagged(name).source for name in workflow.needs.workflows if is_tag(name)}
        files = self.selected(submission, expanded)
        components = cache_key.components(workflow, expanded.image, files, variables, keys)
        key = cache_key.key(components)
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
        include = workflow.needs.repo.include if workflow.needs.repo else None
        files, unmatched = select(self.files, submission.snapshot.project, include)
        self.warnings += unmatched_warnings(workflow.name, unmatched, self.files, submission.snapshot.project)
        return files

    def named(self, job: Job, submission: Submission) -> Job:
        """The named workflow always runs; its `why` still says what has changed since it was last done."""
        last = self.store.jobs.last_done(job.workflow, submission.snapshot.repo)
        changed = self.difference(last, job) if last else None
        return replace(job, why=f"{NAMED} ({changed})" if changed else NAMED)

    def looked_up(self, job: Job, submission: Submission) -> Job:
        """Return the job with a cached result, or with the reason why there is none."""
        if submission.no_cache:
            return replace(job, why="--no-cache")
        damage = None
        for source in self.store.jobs.done_with(job.key):
            if source.id not in self.damages:
                self.unverified.append(source)
            found = self.damages.get(source.id)
            if found is None:
                why = f"nothing changed since {self.store.jobs.known_as(source) or source.run}"
                return replace(job, why=why, **result_of(source, self.now))
            damage = damage or found  # of the newest result
        for other in reversed(self.store.jobs.unfinished()):
            if other.key == job.key and other.shares is None and not other.stop:
                return replace(job, shares=other.id, why=f"the same job is already in progress in {other.run}")
        last = self.store.jobs.last_done(job.workflow, submission.snapshot.repo)
        changed = self.difference(last, job) if last else "it has not run before"
        return replace(job, why=damage or changed or "its result is no longer stored")

    def difference(self, last: Job, job: Job) -> str | None:
        """The first thing that changed between two jobs of a workflow."""
        return cache_key.difference(self.store.cache_keys.components(last.key), self.components[job.key])

    def needed(self, name: str, candidates: dict[str, Job]) -> set[str]:
        """The names of the workflow and of all dependencies that are needed to run what is not cached."""
        needed = {name}
        if candidates[name].cached_from is None:
            for dependency in candidates[name].definition.needs.names:
                needed |= self.needed(dependency, candidates)
        return needed

    def connected(self, job: Job, candidates: dict[str, Job]) -> Job:
        """The job with the ids of the jobs whose artifacts it gets."""
        sources = {
            name: self.tagged(name).source if is_tag(name) else candidates[name].source
            for name in job.definition.needs.workflows
        }
        return replace(job, dependencies=sources)

    def tagged(self, ref: str) -> Job:
        """The job that the tag `:NAME` points to. Raises UsageError if there is no such tag or the job is not done."""
        tag = self.store.tags.get(ref.removeprefix(MARK))
        if tag is None:
            raise UsageError(f"no tag '{ref}'", hint=f"create it: dstack tag RUN {ref.removeprefix(MARK)}")
        job = self.store.jobs.require(tag.job)
        if job.status is not Status.DONE:
            what = f"'{ref}' is the job {job.workflow} of {job.run}, which is {job.status.value}, not done"
            raise UsageError(what, hint=f"tag a run that is done: dstack tag RUN {ref.removeprefix(MARK)}")
        return job
