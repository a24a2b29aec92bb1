"""Finds the repository that a folder is in, reads what a snapshot needs of it, and identifies it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
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
    rf"^({_OUTPUT}|core\.(attributesfile|excludesfile)|remote\..*\.(url|promisor|partialclonefilter)|branch\..*\.remote"
    r"|extensions\.(partialclone|worktreeconfig)|filter\..*\.(clean|smudge|process|required))$"
)
# Settings that name a program with which git fetches; what git uses if nothing is set.
_FETCHING = r"^(core\.(sshcommand|askpass)|credential\.(.*\.)?helper|remote\..*\.(uploadpack|vcs))$"
_DEFAULTS = {"core.sshcommand": "ssh"}
_PARTIAL = re.compile(r"extensions\.partialclone|remote\..*\.(promisor|partialclonefilter)", re.DOTALL)
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_SCP = re.compile(r"(?P<user>[^/@]*)@(?P<rest>[^/]*:.*)", re.DOTALL)
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_USUAL = {"core.filemode": "true", "core.symlinks": "true", "core.ignorecase": "false"}


@dataclass(frozen=True)
class Worktree:
    """A working tree of git. `git_dir` is its own, `common` is shared by all working trees of the repository.
    `indexed_at` is when the index was written, in nanoseconds (0: there is none). `configured` are git's settings, as
    far as a snapshot needs them. `harmless` are settings under which git starts no program that the repository names.
    `aside` is the folder for objects that git fetches by itself."""

    root: Path
    git_dir: Path
    common: Path
    object_format: str
    commit: str | None
    branch: str | None
    indexed_at: int
    configured: dict[str, str]
    harmless: tuple[str, ...]
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
        """Return git for this working tree. Objects that it fetches by itself go to the scratch folder and not to the
        user's repository."""
        git = Git.at(self.root, *self.harmless)
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
    configured = _settings(git)
    harmless = _harmless(git, configured)
    git = Git.at(folder, *harmless)
    root, git_dir, common = (
        folder / os.fsdecode(git.run("rev-parse", option).removesuffix(b"\n"))
        for option in ("--show-toplevel", "--absolute-git-dir", "--git-common-dir")
    )
    _refuse_foreign(root, git_dir)
    _refuse_shared(git, root, git_dir)
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
        configured=configured,
        harmless=harmless,
        aside=scratch / f"fetched-{object_format}",
    )


def _inside(git: Git, folder: Path) -> bool:
    try:
        answer = git.run("rev-parse", "--is-inside-work-tree").strip()
    except GitError as error:
        if "not a git repository (or any" in error.detail:
            return False
        detail, _, trust = error.detail.partition("To add an exception for this directory, call:")
        hint = trust.strip() or None  # git's own
        raise UsageError(f"git refuses to read the repository of {folder}: {detail.strip()}", hint=hint) from error
    if answer != b"true":
        raise UsageError(
            f"{folder} is in a bare repository or a .git folder, where there is no working tree to send",
            hint="make a working tree and run it there: git worktree add ../work",
        )
    return True


def _refuse_foreign(root: Path, git_dir: Path) -> None:
    """Raise UsageError if the repository would have files of another folder sent. A download could name one, and its
    commands would get to read them."""
    link = root / ".git"
    try:
        named = link if link.is_dir() else root / os.fsdecode(link.read_bytes()).removeprefix("gitdir: ").rstrip("\n")
        own = named.samefile(git_dir)
    except OSError:
        own = False
    if not own:
        raise UsageError(
            f"the configuration of {git_dir} makes {root} its working tree, and dstack sends only its own folder",
            hint=f"if you trust it: git --git-dir {shlex.quote(str(git_dir))} config --unset core.worktree",
        )


def _refuse_shared(git: Git, root: Path, git_dir: Path) -> None:
    """Raise UsageError if a file `.git` names the repository or the working tree of another folder, or a repository
    without a working tree."""
    link, back = root / ".git", git_dir / "gitdir"
    whose, main = git_dir, git_dir
    if git_dir.name == ".git":
        whose, main = git_dir.parent, git_dir.parent
        shared = not whose.samefile(root) and not link.is_symlink()
    elif back.is_file():  # a linked working tree, which names its own folder; it may have been moved from there
        named = git_dir / os.fsdecode(back.read_bytes()).rstrip("\n")
        whose, main = named.parent, git_dir.parents[2]
        shared = named.exists() and not named.samefile(link)
    else:
        shared = ("core.bare", "false") not in _configured(git, r"^core\.bare$", "--local")
    if shared:
        raise UsageError(
            f"the file {link} makes the repository of {whose} that of {root}, too; dstack does not send it",
            hint=f"make a working tree of its own: git -C {shlex.quote(str(main))} worktree add FOLDER",
        )


def _settings(git: Git) -> dict[str, str]:
    return dict(_configured(git, _SETTINGS))


def _configured(git: Git, pattern: str, *scope: str) -> list[tuple[str, str]]:
    """Return git's settings whose names match, without those that dstack sets itself. `scope` limits where they come
    from."""
    plain = Git(git.environment, git.folder)
    output = os.fsdecode(plain.run("config", *scope, "-z", "--get-regexp", pattern, accept=(0, 1)))
    pairs = (entry.partition("\n") for entry in output.split("\0") if entry)
    return [(key, value if newline else "true") for key, newline, value in pairs]


def _harmless(git: Git, configured: dict[str, str]) -> tuple[str, ...]:
    """Return settings that switch off every filter, and put the user's own programs for fetching in place of those that
    the repository names. Raises UsageError for what git's `-c` can't set."""
    filters = [key for key in configured if key.startswith("filter.")]
    settings = [f"{key}={'false' if key.endswith('.required') else ''}" for key in filters]
    scopes = ["--local"] + (["--worktree"] if configured.get("extensions.worktreeconfig", "false") != "false" else [])
    named = [key for scope in scopes for key, _ in _configured(git, _FETCHING, scope, "--includes")]
    if odd := [key for key in (*filters, *named) if "=" in key]:
        raise UsageError(
            f"the configuration of {git.folder} has '=' in a section's name, which dstack can't switch off: {odd[0]}",
            hint="rename the section: git config --edit",
        )
    first = next((key for key in named if key.endswith(".uploadpack")), None)  # of several, git takes the first
    if first and any(map(_PARTIAL.fullmatch, configured)):
        raise UsageError(
            f"{git.folder} is a partial clone that names a program to fetch with, {first}; dstack runs only those in "
            "your own configuration (--global)",
            hint=f"git config --unset {first}",
        )
    if named:
        own = [pair for scope in ("--system", "--global") for pair in _configured(git, _FETCHING, scope, "--includes")]
        settings += [f"{key}={_DEFAULTS.get(key, '')}" for key in named]
        settings += ["credential.helper=", *(f"{key}={value}" for key, value in own if "=" not in key)]
    return tuple(settings)


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
