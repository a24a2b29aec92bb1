"""Finds the repository that a folder is in, and reads what a snapshot needs of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dstack.errors import UsageError
from dstack.plumbing.git import Git, GitError, quoted
from dstack.snapshot.identity import clean_url

# Settings that change what `git status` and `git diff` print. None of them runs a program.
_OUTPUT = (
    r"core\.(autocrlf|eol|safecrlf|filemode|ignorecase|symlinks|abbrev|sparsecheckout|sparsecheckoutcone|whitespace)"
    r"|index\.sparse"
    r"|status\.(showuntrackedfiles|relativepaths|renames|renamelimit|branch|short|submodulesummary|displaycommentprefix)"
    r"|diff\.(renames|renamelimit|algorithm|context|interhunkcontext|noprefix|mnemonicprefix|ignoresubmodules|submodule"
    r"|indentheuristic|suppressblankempty|relative)"
    r"|submodule\..*\.(ignore|active)"
)
_SETTINGS = (
    rf"^({_OUTPUT}|core\.(attributesfile|excludesfile)|remote\..*\.(url|promisor)|branch\..*\.remote"
    r"|extensions\.partialclone)$"
)
_USUAL = {"core.filemode": "true", "core.symlinks": "true", "core.ignorecase": "false"}


@dataclass(frozen=True)
class Worktree:
    """A working tree of git. `git_dir` is its own, `common` is shared by all working trees of the repository. `url` is
    the remote's, without credentials. `indexed_at` is when the index was written, in nanoseconds (0: there is none).
    `converts`: line ends may differ between disk and blobs. `promisor` is the remote with the objects that a partial
    clone lacks; `aside` is the folder for those that git fetches by itself. `has_attributes`: there are attributes
    outside the tree. `settings` are those that change what git prints.
    """

    root: Path
    git_dir: Path
    common: Path
    objects: Path
    object_format: str
    commit: str | None
    branch: str | None
    url: str | None
    indexed_at: int
    converts: bool
    promisor: str | None
    has_attributes: bool
    settings: dict[str, str]
    attributes_file: Path
    excludes_file: Path
    aside: Path

    def git(self) -> Git:
        """Return git for this working tree. Objects that it fetches by itself, and files that Git LFS caches, go to the
        scratch folder and not to the user's repository."""
        git = Git.at(self.root)
        git.options += ["-c", f"lfs.storage={self.aside.parent / 'lfs'}"]
        if self.promisor:
            self.aside.mkdir(exist_ok=True)
            del git.environment["GIT_NO_LAZY_FETCH"]
            git.environment["GIT_OBJECT_DIRECTORY"] = str(self.aside)
            git.environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = quoted(self.objects)
        return git


def locate(folder: Path, scratch: Path) -> Worktree | None:
    """Return the working tree that `folder` is in, or None if it is not in a repository. Raises UsageError if the
    repository has no working tree here or git refuses to read it. `scratch` is a folder for git's own files."""
    git = Git.at(folder)
    if not _inside(git, folder):
        return None
    root = Path(os.fsdecode(git.run("rev-parse", "--show-toplevel").removesuffix(b"\n")))
    git_dir = Path(os.fsdecode(git.run("rev-parse", "--absolute-git-dir").removesuffix(b"\n")))
    common = _common(git_dir)
    index = git_dir / "index"
    indexed_at = index.stat().st_mtime_ns if index.exists() else 0
    object_format = git.run("rev-parse", "--show-object-format").decode().strip()
    settings = _settings(git)
    branch = git.run("symbolic-ref", "-q", "HEAD", accept=(0, 1)).rstrip(b"\n")
    name = os.fsdecode(branch.removeprefix(b"refs/heads/")) if branch.startswith(b"refs/heads/") else None
    return Worktree(
        root=root,
        git_dir=git_dir,
        common=common,
        objects=common / "objects",
        object_format=object_format if object_format == "sha256" else "sha1",
        commit=git.run("rev-parse", "-q", "--verify", "HEAD^{commit}", accept=(0, 1, 128)).decode().strip() or None,
        branch=name,
        url=_remote(settings, name),
        indexed_at=indexed_at,
        converts=settings.get("core.autocrlf", "false").lower() not in ("false", "no", "off", "0", ""),
        promisor=_promisor(settings),
        has_attributes=_attributes_outside(common, settings),
        settings={
            key: value
            for key, value in settings.items()
            if re.fullmatch(_OUTPUT, key, re.DOTALL) and _USUAL.get(key.lower()) != value
        },
        attributes_file=_user_file(settings, "attributes"),
        excludes_file=_user_file(settings, "excludes", "ignore"),
        aside=scratch / f"fetched-{object_format}",
    )


def _inside(git: Git, folder: Path) -> bool:
    try:
        answer = git.run("rev-parse", "--is-inside-work-tree").strip()
    except GitError as error:
        if "not a git repository (or any" in error.detail:
            return False
        hint = None
        if "dubious ownership" in error.detail or "unsafe repository" in error.detail:
            hint = f"git config --global --add safe.directory '{folder}'"
        raise UsageError(f"git refuses to read the repository of {folder}: {error.detail}", hint=hint) from error
    if answer != b"true":
        raise UsageError(
            f"{folder} is in a bare repository or a .git folder, where there is no working tree to send",
            hint="make a working tree and run it there: git worktree add ../work",
        )
    return True


def _common(git_dir: Path) -> Path:
    """Return the folder with the objects of all working trees (gitrepository-layout, "commondir")."""
    pointer = git_dir / "commondir"
    if not pointer.is_file():
        return git_dir
    return Path(os.path.normpath(git_dir / os.fsdecode(pointer.read_bytes().rstrip(b"\n"))))


def _settings(git: Git) -> dict[str, str]:
    plain = Git(git.environment, git.folder, "safe.directory=*")
    output = os.fsdecode(plain.run("config", "-z", "--get-regexp", _SETTINGS, accept=(0, 1)))
    pairs = (entry.partition("\n") for entry in output.split("\0") if entry)
    return {key: value if newline else "true" for key, newline, value in pairs}


def _remote(settings: dict[str, str], branch: str | None) -> str | None:
    """Return the URL of the branch's remote, else of origin, else of the first remote."""
    urls = {key[len("remote.") : -len(".url")]: value for key, value in settings.items() if key.endswith(".url")}
    for name in (settings.get(f"branch.{branch}.remote"), "origin", *urls):
        if name is not None and name in urls:
            return clean_url(urls[name])
    return None


def _promisor(settings: dict[str, str]) -> str | None:
    names = [key[len("remote.") : -len(".promisor")] for key in settings if key.endswith(".promisor")]
    return settings.get("extensions.partialclone") or (names[0] if names else None)


def _user_file(settings: dict[str, str], kind: str, default: str | None = None) -> Path:
    """Return the user's own attributes or excludes file (gitattributes, gitignore)."""
    named = settings.get(f"core.{kind}file")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git" / (default or kind)


def _attributes_outside(common: Path, settings: dict[str, str]) -> bool:
    files = [common / "info/attributes", Path("/etc/gitattributes"), _user_file(settings, "attributes")]
    return any(file.is_file() and file.stat().st_size > 0 for file in files)
