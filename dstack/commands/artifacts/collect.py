"""Collects a job's artifacts: their list, hashed on the host, and their bytes.

Files from a container are untrusted. They are read only after the container has ended, and links are not followed.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dstack.commands.artifacts import listing_parser
from dstack.commands.command import LISTS, Command, Result, done
from dstack.model.job.links import relative, stays
from dstack.model.job.manifest import LONGEST, File, Folder, normal, objection, occupied_parent, shown
from dstack.model.paths import CONTAINER_TREE
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.render import quote, script

LISTING = "listing the artifacts"
FETCHING = "fetching the artifacts"

COMMAND_LINE = 16_000
"""Characters of arguments before the last one. Linux allows a command at least 128 KiB."""

FOLDER_BITS = 0o3777
"""What a folder keeps: permissions, setgid and the sticky bit."""

KINDS = {
    **{stat.S_IFREG: None, stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"},
    **{stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"},
}


@dataclass(frozen=True)
class ArtifactListing:
    """A job's artifacts. `missing` are the paths of required artifacts that don't exist; `refused` has one sentence
    per path that can't be stored, with the reason. `gone`: the job's folder no longer exists. `folders` are all folders
    at and below the artifacts' paths."""

    files: tuple[File, ...]
    missing: tuple[str, ...]
    refused: tuple[str, ...]
    gone: bool = False
    folders: tuple[Folder, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """The artifacts to ask the host for: `paths` in normal form, `roots` those that lie in no other one."""

    paths: dict[str, Artifact]
    roots: tuple[str, ...]
    refused: tuple[str, ...]


def listing(
    context: HostContext, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]
) -> Command[ArtifactListing]:
    """List and hash the artifacts of a job whose container has ended. Waits for a container that is about to end, and
    stops it. First makes the host's user the owner of all files, and makes them readable; then puts them where no
    process of the job can reach them: see `made`. Raises CommandError if the owner can't be changed."""
    wanted = want(artifacts, project)
    held = tuple(posixpath.normpath(posixpath.join(project, path)) for path in wanted.roots)
    body = script(
        "artifacts/listing",
        context,
        attempt,
        image=image,
        project=project,
        paths=tuple(map(dotted, wanted.paths)),
        roots=tuple(map(dotted, wanted.roots)),
        held=held,
        dotted=tuple(map(dotted, held)),
        skipped="-" if project else "./.git",
        longest=LONGEST + len("./") + 1,
        record=True,
    )
    tree = posixpath.join(CONTAINER_TREE, project)
    return Command(LISTING, body, lambda result: read(wanted, project, tree, result), most=LISTS)


def made(project: str) -> str:
    """Return the folder of the listed files, below the job's folder. Processes of the job can't reach it."""
    return f"made/{project}" if project else "made"


def fetch(context: HostContext, attempt: str, tree: str, files: Sequence[File]) -> Command[None]:
    """Print the contents of these regular files, one after the other, on stdout. `tree` is their folder, below the
    job's folder. The reader must compare each sha256 with the list: the bytes may come from elsewhere."""
    cats = b"".join(on_files("cat", files))
    return Command(FETCHING, script("artifacts/fetch", context, attempt, tree=tree, length=len(cats)), done, cats)


def on_files(words: str, files: Iterable[File]) -> Iterator[bytes]:
    """Yield lines of sh that run a command on these files but links, as many at a time as fit on a command line."""
    for batch in batches(file.path for file in files if file.link is None):
        yield line(words, quote(batch))


def batches(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield the paths, as many at a time as fit on a command line; no command mistakes one for an option."""
    batch: list[str] = []
    size = 0
    for path in map(dotted, paths):
        if size > COMMAND_LINE:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(path)
        size += len(path)
    if batch:
        yield tuple(batch)


def line(*words: str) -> bytes:
    """Return a line of sh. Surrogate escapes become the bytes for which they stand."""
    return (" ".join(words) + "\n").encode("utf-8", "surrogateescape")


def want(artifacts: tuple[Artifact, ...], project: str) -> Wanted:
    """Return what to ask the host for. Paths that an artifact can't have are refused right away."""
    paths: dict[str, Artifact] = {}
    refused = []
    for artifact in artifacts:
        path = normal(artifact.path)
        if (why := objection(path)) is not None:
            refused.append(f"the artifact {why}")
        elif not project and path.split("/")[0] == ".git":
            refused.append(f"the artifact {shown(path)} is git's internal folder")
        elif path not in paths or not artifact.optional:
            paths[path] = artifact
    roots = tuple(path for path in paths if path == "." or not ("." in paths or occupied_parent(path, paths)))
    return Wanted(paths, roots, tuple(refused))


def dotted(path: str) -> str:
    """Return the path so that no command mistakes it for an option."""
    return path if path == "." else f"./{path}"


def read(wanted: Wanted, project: str, tree: str, result: Result) -> ArtifactListing:
    """Parse the host's answer. `tree` is the project's folder in the container."""
    if result.stdout == b"gone=yes\n":
        return ArtifactListing((), (), ("the job's folder is gone from its machine",), gone=True)
    answer = listing_parser.parse(result.stdout)
    required = [path for path, artifact in wanted.paths.items() if not artifact.optional]
    if answer.project == "missing":
        return ArtifactListing((), tuple(wanted.paths[path].path for path in required), wanted.refused)
    if answer.project not in (None, "present"):
        why = f"the project's folder {shown(project)} is a link or not a folder"
        return ArtifactListing((), (), (*wanted.refused, why))
    kinds = dict(zip(wanted.paths, answer.paths, strict=True))
    missing = tuple(wanted.paths[path].path for path in required if kinds[path] == "missing")
    refused = [*wanted.refused]
    refused += [f"the artifact {shown(path)} is a link or lies behind one" for path in kinds if kinds[path] == "link"]
    refused += [f"the artifact {shown(path)} is not a file or folder" for path in kinds if kinds[path] == "special"]
    refused += [f"the path of an artifact is too long: {shown(path)}" for path in answer.long]
    refused += [f"the artifacts could not be listed completely: {answer.trouble}"] if answer.trouble else []
    files, complaints = judged(answer, wanted.roots, tree)
    return ArtifactListing(files, missing, (*refused, *complaints), folders=folders(answer, wanted.roots, project))


def folders(answer: listing_parser.Answer, roots: tuple[str, ...], project: str) -> tuple[Folder, ...]:
    """Return the folders that can be stored, with the modes that the job gave them. Raises ValueError for one that is
    outside of the artifacts, or also a file: no honest host answers that."""
    inside = f"{project}/" if project else ""
    found = []
    for path, mode in answer.folders.items():
        if path != "." and objection(path) is None:
            if path in answer.stats or path in answer.links or not _inside(path, roots):
                raise ValueError(f"{shown(path)} is not a folder of an artifact")
            found.append(Folder(path, answer.modes.get(inside + path, mode) & FOLDER_BITS))
    return tuple(sorted(found, key=lambda folder: folder.path))


def judged(answer: listing_parser.Answer, roots: tuple[str, ...], tree: str) -> tuple[tuple[File, ...], list[str]]:
    """Return the files and links that can be stored, and a sentence about each one that can't. Raises ValueError for
    what no honest host answers: a path outside of the artifacts, or two that can't be in one folder."""
    files, refused = [], []
    for path, (mode, size) in answer.stats.items():
        kind = KINDS.get(stat.S_IFMT(mode), "not a file")
        if (why := objection(path)) is not None:
            refused.append(why)
        elif kind is not None:
            refused.append(f"{shown(path)} is {kind}")
        elif (sha256 := answer.hashes.get(path)) is None:
            refused.append(f"{shown(path)} could not be read")
        else:
            files.append(File(path, size, mode & 0o777, sha256))
    refused += [f"{shown(path)} could not be read" for path in answer.names if path not in answer.stats]
    targets = movable(answer, roots, tree)
    for path, target in targets.items():
        if (why := objection(path)) is not None:
            refused.append(why)
        elif not stays(path, targets, artifact_of(path, roots)):
            refused.append(f"{shown(path)} is a link out of its artifact, to {shown(answer.links[path])}")
        else:
            files.append(File(path, 0, 0o777, "", target))
    if why := _impossible(files, roots):
        raise ValueError(why)
    return tuple(sorted(files, key=lambda file: file.path)), refused


def artifact_of(path: str, roots: tuple[str, ...]) -> str:
    return next((root for root in roots if path.startswith(f"{root}/")), ".")


def movable(answer: listing_parser.Answer, roots: tuple[str, ...], tree: str) -> Mapping[str, str]:
    """Return the links with targets that mean the same wherever the artifact lies: an absolute target in its own
    artifact becomes a relative one."""
    parents = {parent for root in roots for parent in accumulate(root.split("/")[:-1], "{}/{}".format)}
    known, moved = {*answer.folders, *parents}, dict(answer.links)
    for path, target in answer.links.items():
        moved[path] = relative(path, target, tree, known) or target
    return moved


def _impossible(files: Sequence[File], roots: tuple[str, ...]) -> str | None:
    """What no honest host answers about these files, each of which could be stored."""
    by_path = {file.path: file for file in files}
    if len(by_path) < len(files):
        return "it lists a path twice"
    for path in by_path:
        if path == "." or not _inside(path, roots):
            return f"{shown(path)} is not in an artifact"
        if (above := occupied_parent(path, by_path)) is not None:
            return f"{shown(above)} is both a file and a folder"
    return None


def _inside(path: str, roots: tuple[str, ...]) -> bool:
    return any(root in (".", path) or path.startswith(f"{root}/") for root in roots)
