"""Finds the repository that a folder is in, reads what a snapshot needs of it, and identifies it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dstack.errors import UsageError
from dstack.plumbing.git import Git, GitError, quoted

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
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_SCP = re.compile(r"(?P<user>[^/@]*)@(?P<rest>[^/]*:.*)", re.DOTALL)
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_USUAL = {"core.filemode": "true", "core.symlinks": "true", "core.ignorecase": "false"}


@dataclass(frozen=True)
class Worktree:
    """A working tree of git. `git_dir` is its own, `common` is shared by all working trees of the repository.
    `indexed_at` is when the index was written, in nanoseconds (0: there is none). `configured` are git's settings, as
    far as a snapshot needs them. `aside` is the folder for objects that git fetches by itself."""

    root: Path
    git_dir: Path
    common: Path
    object_format: str
    commit: str | None
    branch: str | None
    indexed_at: int
    configured: dict[str, str]
    aside: Path

    @property
    def objects(self) -> Path:
        """The folder with the repository's objects."""
        return self.common / "objects"

    @property
    def settings(self) -> dict[str, str]:
        """The settings that change what git prints."""
        return {
            key: value
            for key, value in self.configured.items()
            if re.fullmatch(_OUTPUT, key, re.DOTALL) and _USUAL.get(key.lower()) != value
        }

    @property
    def url(self) -> str | None:
        """The URL of the branch's remote, else of origin, else of the first remote; without credentials."""
        urls = self._remotes("url")
        for name in (self.configured.get(f"branch.{self.branch}.remote"), "origin", *urls):
            if name is not None and name in urls:
                return clean_url(urls[name])
        return None

    @cached_property
    def promisor(self) -> str | None:
        """The remote with the objects that a partial clone lacks."""
        return self.configured.get("extensions.partialclone") or next(iter(self._remotes("promisor")), None)

    @property
    def converts(self) -> bool:
        """Whether line ends may differ between disk and blobs."""
        return self.configured.get("core.autocrlf", "false").lower() not in ("false", "no", "off", "0", "")

    @property
    def has_attributes(self) -> bool:
        """Whether there are attributes outside the tree."""
        files = [self.common / "info/attributes", Path("/etc/gitattributes"), self.user_file("attributes")]
        return any(file.is_file() and file.stat().st_size > 0 for file in files)

    def user_file(self, kind: str, default: str | None = None) -> Path:
        """Return the user's own `attributes` or `excludes` file (gitattributes, gitignore)."""
        if named := self.configured.get(f"core.{kind}file"):
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git" / (default or kind)

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

    def _remotes(self, setting: str) -> dict[str, str]:
        """Return the value of a setting by remote."""
        found = (re.fullmatch(rf"remote\.(.*)\.{setting}", key, re.DOTALL) for key in self.configured)
        return {match[1]: self.configured[match[0]] for match in found if match}


def locate(folder: Path, scratch: Path) -> Worktree | None:
    """Return the working tree that `folder` is in, or None if it is not in a repository. Raises UsageError if the
    repository has no working tree here or git refuses to read it. `scratch` is a folder for git's own files."""
    git = Git.at(folder)
    if not _inside(git, folder):
        return None
    root, git_dir, common = (
        folder / os.fsdecode(git.run("rev-parse", option).removesuffix(b"\n"))
        for option in ("--show-toplevel", "--absolute-git-dir", "--git-common-dir")
    )
    index = git_dir / "index"
    object_format = git.run("rev-parse", "--show-object-format").decode().strip()
    branch = git.run("symbolic-ref", "-q", "HEAD", accept=(0, 1)).rstrip(b"\n")
    return Worktree(
        root=root,
        git_dir=git_dir,
        common=common.resolve(),
        object_format=object_format if object_format == "sha256" else "sha1",
        commit=git.run("rev-parse", "-q", "--verify", "HEAD^{commit}", accept=(0, 1, 128)).decode().strip() or None,
        branch=os.fsdecode(branch.removeprefix(b"refs/heads/")) if branch.startswith(b"refs/heads/") else None,
        indexed_at=index.stat().st_mtime_ns if index.exists() else 0,
        configured=_settings(git),
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


def _settings(git: Git) -> dict[str, str]:
    plain = Git(git.environment, git.folder, "safe.directory=*")
    output = os.fsdecode(plain.run("config", "-z", "--get-regexp", _SETTINGS, accept=(0, 1)))
    pairs = (entry.partition("\n") for entry in output.split("\0") if entry)
    return {key: value if newline else "true" for key, newline, value in pairs}


def clean_url(url: str) -> str:
    """Return the URL without password and token. Only SSH URLs keep the user name, which is the login."""
    url = url.strip()
    parts = _URL.fullmatch(url)
    if parts is None:
        scp = _SCP.fullmatch(url)
        return f"{scp['user'].partition(':')[0]}@{scp['rest']}" if scp else url
    userinfo, _, host = parts["authority"].rpartition("@")
    rest = parts["rest"]
    if "ssh" in parts["scheme"].lower():
        user = userinfo.partition(":")[0]
        return f"{parts['scheme']}://{user}{'@' if user else ''}{host}{rest}"
    return f"{parts['scheme']}://{host}{re.split('[?#]', rest, maxsplit=1)[0]}"


def repo_id(url: str | None, root: Path, object_format: str = "sha1", *, machine: str | None = None) -> str:
    """Return a short hash of the cleaned remote URL, so that everyone who works on a repository shares its objects.
    Without a remote, or with one on this machine's disk, it is a hash of machine and path."""
    identity = clean_url(url).rstrip("/").removesuffix(".git").rstrip("/") if url else ""
    if not identity or _is_local(identity):
        identity = f"{machine or machine_name()}:{identity or os.path.abspath(root)}"
    if object_format != "sha1":
        identity = f"{object_format}:{identity}"
    return hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]


def machine_name() -> str:
    """Return an id that is unique to this machine."""
    for file in _MACHINE_IDS:
        if file.is_file() and (name := file.read_text().strip()):
            return name
    return platform.node()


def _is_local(url: str) -> bool:
    if parts := _URL.fullmatch(url):
        return parts["scheme"].lower() == "file"
    return ":" not in url.partition("/")[0]
