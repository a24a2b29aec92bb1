"""Brings a commit of a remote into the mirror, with the definitions that it has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from dstack.errors import DstackError, UsageError
from dstack.mirror.mirror import KNOWN, Mirror
from dstack.mirror.remote import RemoteError, RemoteRepository
from dstack.model.code.selection import rule
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.ticks import Template, Tick, TriggerRecord
from dstack.model.project.files import CONFIGS, FOLDER, WORKFLOWS, only
from dstack.model.project.graph import closure
from dstack.model.project.nodes import LARGEST, SourceFile
from dstack.model.project.project import Project, parse
from dstack.model.project.variables import apply
from dstack.model.triggers.codes import TriggerCode
from dstack.plumbing.git import Git, GitError
from dstack.plumbing.history import boundary, with_depths
from dstack.plumbing.packs import commit_of, write_pack
from dstack.plumbing.trees import differences

SKIP = "[skip dstack]"
REGULAR = ("100644", "100755")


class NotWantedError(DstackError):
    """A commit that the trigger does not run; `code` says why."""


@dataclass
class CommitReader:
    """Reads one commit for a trigger's tick. All methods take long: they are for a thread."""

    record: TriggerRecord
    tick: Tick
    remote: RemoteRepository
    mirror: Mirror

    def read(self) -> Template:
        """Return the commit's code, which is in the mirror then, and its definitions with the trigger's variables.
        Raises RemoteError, UsageError for definitions that are not valid, and NotWantedError."""
        self.mirror.path.parent.mkdir(parents=True, exist_ok=True)
        with self.remote.repository(self.record.object_format, self.mirror.path) as git:
            commit = self.fetch(git)
            self.refuse_unwanted(git, commit)
            project = definitions(git, commit, self.record.project)
            workflow = self.record.definition.workflow
            workflows = closure(project.workflows, workflow)
            variables = apply(project, workflow, [*self.record.definition.variables.items()])
            snapshot = self.snapshot(git, commit, {each.fetch_depth for each in workflows})
            if not self.mirror.has(snapshot):
                self.keep(git, snapshot)
        return Template(snapshot=snapshot, workflows=tuple(workflows), variables=variables)

    def fetch(self, git: Git) -> str:
        """Fetch the tick's commit, or the newest one of the branch."""
        branch = f"refs/heads/{self.record.definition.branch}"
        if self.tick.commit is None:
            return self.remote.fetch(git, branch, 1, "head")
        try:
            return self.remote.fetch(git, self.tick.commit, 1, "head")
        except RemoteError:
            newest = self.remote.fetch(git, branch, 1, "head")  # some servers give out branches only
        if newest != self.tick.commit:
            text = f"{self.record.definition.branch} is at {newest[:12]} by now"
            raise NotWantedError(text, code=TriggerCode.SUPERSEDED)
        return newest

    def refuse_unwanted(self, git: Git, commit: str) -> None:
        """Raise NotWantedError for a push that says so, or that changes nothing in the trigger's paths."""
        push = self.record.definition.push
        if push is None or self.tick.commit is None:
            return
        if SKIP in os.fsdecode(git.run("log", "-1", "--format=%B", commit)):
            raise NotWantedError(f"the commit's message contains {SKIP}", code=TriggerCode.SKIP_MESSAGE)
        if push.paths and self.tick.before and self.available(git, self.tick.before):
            tree = git.run("rev-parse", f"{commit}^{{tree}}").decode().strip()
            changed = [os.fsdecode(each.path) for each in differences(git, self.tick.before, tree)]
            if not touches(push.paths, self.record.project, changed):
                text = f"nothing in {', '.join(push.paths)} changed since {self.tick.before[:12]}"
                raise NotWantedError(text, code=TriggerCode.OTHER_PATHS)

    def available(self, git: Git, commit: str) -> bool:
        """Fetch the commit before a push; return whether it could be had. Without it, the push counts."""
        try:
            self.remote.fetch(git, commit, 1, "before")
        except RemoteError:
            return git.succeeds("rev-list", "--objects", "--no-walk", "--quiet", commit)
        return True

    def snapshot(self, git: Git, commit: str, depths: set[int]) -> Snapshot:
        """Return the commit's snapshot, with as much history as the workflows want."""
        plain = Snapshot(
            repo=self.record.repo,
            tree=git.run("rev-parse", f"{commit}^{{tree}}").decode().strip(),
            commit=commit,
            url=self.remote.url,
            branch=self.record.definition.branch,
            project=self.record.project,
            object_format=self.record.object_format,
        )
        if depths == {1}:
            return plain
        self.remote.fetch(git, commit, 0 if 0 in depths else max(depths), "deep")
        file = Path(git.environment["GIT_DIR"]) / "shallow"
        cut = set(file.read_text().split()) if file.exists() else set()
        ends = {depth: boundary(git, cut, commit, depth) for depth in depths}
        depth, shallow = with_depths(ends, depths)
        return replace(plain, depth=depth, shallow=shallow, ends=ends)

    def keep(self, git: Git, snapshot: Snapshot) -> None:
        """Send the code into the mirror, as a client does: without what it has, unless that is damaged."""
        own = Git.within(Path(git.environment["GIT_DIR"]))
        file = Path(git.environment["GIT_DIR"]) / "snapshot.pack"
        known = [name for name in self.mirror.newest()[:KNOWN] if own.succeeds("cat-file", "-e", commit_of(name))]
        try:
            self.mirror.receive(snapshot, write_pack(own, snapshot, known, file))
        except DstackError:
            if not known:
                raise
            self.mirror.receive(snapshot, write_pack(own, snapshot, [], file))


def touches(paths: tuple[str, ...], project: str, changed: list[str]) -> bool:
    """Whether one of the changed files matches an entry; entries are relative to the project's folder."""
    prefix = f"{project}/" if project else ""
    inside = [path.removeprefix(prefix) for path in changed if path.startswith(prefix)]
    return any(fits(path) for fits in map(rule, paths) for path in inside)


def definitions(git: Git, commit: str, project: str) -> Project:
    """Read the project's files from a commit. Raises UsageError if they are missing, ProjectError for mistakes."""
    folder = f"{project}/{FOLDER}" if project else FOLDER
    try:
        listed = os.fsdecode(git.run("ls-tree", "-z", f"{commit}:{folder}")).split("\0")
    except GitError:
        listed = []
    files = {name: about.split() for about, _, name in (line.partition("\t") for line in listed if line)}

    def source(names: tuple[str, ...]) -> SourceFile | None:
        path = only(names, files)
        return path and SourceFile(path, text(git, path, *files[path.rpartition("/")[2]]))  # type: ignore[return-value]

    workflows = source(WORKFLOWS)
    if workflows is None:
        raise UsageError(f"{commit[:12]} has no {folder}/{WORKFLOWS[0]}")
    return parse(workflows, source(CONFIGS))


def text(git: Git, path: str, mode: str, kind: str, oid: str) -> str:
    """Return the text of a regular file of a commit."""
    if mode not in REGULAR:
        raise UsageError(f"{path} in the commit is not a regular file ({kind}, mode {mode})")
    if int(git.run("cat-file", "-s", oid)) > 4 * LARGEST:
        raise UsageError(f"{path} in the commit is too large")
    try:
        return git.run("cat-file", "blob", oid).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} in the commit is not UTF-8") from error
