"""A remote repository that the server reads with its own git: asks for a branch, and fetches commits.

git is started directly: GitPython can't end the ssh and https processes under a fetch that hangs.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dstack.errors import DstackError, ErrorCode
from dstack.model.text.untrusted import shorten
from dstack.plumbing.git import Git, GitError, make_bare

ASK_SECONDS = 60.0
FETCH_SECONDS = 900.0
ANY = "https:http:ssh:git:file"
"""What git may speak (git(1), GIT_ALLOW_PROTOCOL). It excludes `ext::`, which runs a command."""
WITHOUT_LOGIN = "https:http"
HELPER = '!f() { test "$1" = get && printf \'username=%s\\npassword=%s\\n\' x-access-token "$DSTACK_GIT_TOKEN"; }; f'
"""A credential helper (gitcredentials(7)) that answers with the token in its environment."""
UNKNOWN_KEY = "host key verification failed"


RUNNING: set[subprocess.Popen[bytes]] = set()
"""What has been started and not ended, by any thread."""


def end_all() -> None:
    """End every git in progress, with all that it started: the server stops."""
    for process in list(RUNNING):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class RemoteError(DstackError):
    """A remote can't be read. The message has git's words."""

    code = ErrorCode.REMOTE


@dataclass(frozen=True)
class RemoteRepository:
    """The repository at a URL. `key` is a file with a private key, `token` a password for https. Only if it is
    `trusted`, git may use the logins of the server's user."""

    url: str
    key: str | None = None
    token: str | None = None
    trusted: bool = False

    def head(self, branch: str) -> str:
        """Return the newest commit of a branch. Raises RemoteError, also if there is no such branch."""
        ref = f"refs/heads/{branch}"
        with self.repository("sha1") as git:
            answer = self._run(git, ASK_SECONDS, "ls-remote", "--", self.url, ref)
        found = {name: oid for oid, _, name in (line.partition("\t") for line in answer.splitlines())}
        if ref not in found:
            hint = "push the branch again, or name another one and type: dstack triggers apply"
            raise RemoteError(f"there is no branch '{branch}' in {self.url}", hint=hint, code=ErrorCode.NO_BRANCH)
        return found[ref]

    def fetch(self, git: Git, wanted: str, depth: int, name: str) -> str:
        """Fetch a commit (or `refs/heads/...`), `depth` deep (0: all of the history), and return its id. Raises
        RemoteError, also if the remote does not give out single commits."""
        shallow = git.folder is not None and (git.folder / "shallow").exists()
        deep = [f"--depth={depth}"] if depth else ["--unshallow"] if shallow else []
        options = ("--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "-q", *deep)
        self._run(git, FETCH_SECONDS, "fetch", *options, "--", self.url, f"+{wanted}:refs/fetched/{name}")
        return git.run("rev-parse", f"refs/fetched/{name}^{{commit}}").decode().strip()

    @contextmanager
    def repository(self, object_format: str, known: Path | None = None) -> Iterator[Git]:
        """Yield git for an empty repository to fetch into, which is removed when the context ends. What the mirror
        `known` has is not fetched again."""
        place = known.parent if known else None
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=place) as folder:
            there = [known.absolute() / "objects"] if known and (known / "HEAD").exists() else []
            make_bare(Path(folder), object_format, there)
            if known and there and (known / "shallow").exists():
                (Path(folder) / "shallow").write_bytes((known / "shallow").read_bytes())
            yield Git({**Git.at(Path(folder)).environment, "GIT_DIR": folder}, Path(folder))

    def _run(self, git: Git, seconds: float, *arguments: str) -> str:
        """Run git and all that it starts within a time limit. Raises RemoteError."""
        settings = [word for setting in self._settings() for word in ("-c", setting)]
        process = subprocess.Popen(
            ["git", *settings, *arguments],
            cwd=git.folder,
            env={**git.environment, **self._variables(str(git.folder))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        RUNNING.add(process)
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise RemoteError(f"{self.url} did not answer within {seconds:.0f} seconds") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            RUNNING.discard(process)
        if process.returncode:
            raise self._failure(GitError(arguments, process.returncode, errors))
        return os.fsdecode(output)

    def _failure(self, error: GitError) -> RemoteError:
        words = error.detail.replace(self.token, "***") if self.token else error.detail
        login = "log in there as the server's user, name a deploy key (--key) or a secret with a token (--token)"
        hint = f"{login}, or look: git ls-remote {shlex.quote(self.url)}"
        if UNKNOWN_KEY in words.lower():
            hint = "accept the host's key once, on the server's machine and as its user: ssh -T HOST"
        return RemoteError(f"{self.url} can't be fetched: {shorten(words, 1000)}", hint=hint)

    def _settings(self) -> Iterator[str]:
        yield "credential.interactive=false"
        yield "fetch.unpackLimit=1"
        if not self.trusted:
            yield "http.followRedirects=false"  # it could lead to what only the server reaches
        if self.token:
            parts = urlsplit(self.url)
            yield "credential.helper="
            yield f"credential.{parts.scheme}://{parts.netloc.rpartition('@')[2]}.helper={HELPER}"

    def _variables(self, empty: str) -> dict[str, str]:
        """git asks nobody, and reads nothing of the server's user unless it is trusted."""
        ssh = ["ssh", "-oBatchMode=yes", "-oConnectTimeout=20"]
        ssh += [f"-i{shlex.quote(self.key)}", "-oIdentitiesOnly=yes"] if self.key else []
        variables = {"GIT_SSH_COMMAND": " ".join(ssh), "SSH_ASKPASS": "", "SSH_ASKPASS_REQUIRE": "never"}
        variables |= {"GIT_ASKPASS": "", "GIT_ALLOW_PROTOCOL": ANY, "GIT_PROTOCOL_FROM_USER": "0"}
        if self.token:
            variables["DSTACK_GIT_TOKEN"] = self.token
        if not self.trusted:
            alone = {"HOME": empty, "XDG_CONFIG_HOME": empty, "GIT_CONFIG_GLOBAL": os.devnull}
            variables |= alone | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": WITHOUT_LOGIN}
        return variables


_NETWORK = re.compile(r"(https?|ssh|git)://([^/?#\s]+)(/\S*)?")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9a-fA-F:]+\]):(?!:)(?!//)\S+")
_FILE = re.compile(r"file:///[^\x00-\x1f\x7f]*|/[^\x00-\x1f\x7f]*")


def host_of(url: str) -> str | None:
    """Return the host that a remote's URL names, "" for a path on the server's machine. None for a URL that is not
    one, or that git would take for a command or an option."""
    if _FILE.fullmatch(url):
        return ""
    network = _NETWORK.fullmatch(url)
    if network:
        host = network[2].rpartition("@")[2]
        login = network[2].rpartition("@")[0]
        return None if host.startswith("-") or login.startswith("-") else re.sub(r":\d*$", "", host).strip("[]")
    scp = _SCP.fullmatch(url)
    return scp[1].strip("[]") if scp else None
