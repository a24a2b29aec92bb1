"""The names of all of dstack's files and folders: on runners, in containers and in the server's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONTAINER_IO = "/.dstack"
CONTAINER_TREE = "/workflow"

TAR_COMPLETE = ".dstack/.artifacts-complete"
"""The last entry in a tar of artifacts. Without it, tar could not detect a stream cut off between two entries."""


@dataclass(frozen=True)
class HostLayout:
    """A server's folder on one runner: `<root>/<machine>/<server>/`. `root` may start with `~/`. `machine` keeps
    machines with a shared home directory apart; `server` keeps servers that share a machine apart. The paths below are
    relative to this folder."""

    root: str
    machine: str
    server: str

    @staticmethod
    def job(attempt: str) -> str:
        """The folder of one attempt of a job, named by its id."""
        return f"jobs/{attempt}"

    @staticmethod
    def kept(attempt: str) -> str:
        """The attempt's retained artifacts, kept after its folder is removed."""
        return f"kept/{attempt}"

    @staticmethod
    def mirror(repo: str) -> str:
        """The bare repository with a project's git objects."""
        return f"mirrors/{repo}.git"

    @staticmethod
    def cache(repo: str, name: str) -> str:
        """A cache folder, shared by the project's jobs, including jobs that run at the same time."""
        return f"caches/{repo}/{name}"


def attempt_id(job: str, attempt: int) -> str:
    """Return the name of an attempt: the job's id for the first, `<id>-2` for the second."""
    return job if attempt == 1 else f"{job}-{attempt}"


def attempt_number(name: str) -> tuple[str, int]:
    """Return the job and the number of an attempt with this name. Raises ValueError for any other name."""
    job, _, number = name.partition("-")
    return job, int(number) if number else 1


def container(attempt: str) -> str:
    return f"dstack-{attempt}"


KEPT_LOGS = 3
"""How many full files of the server's log are kept beside the current one."""


class ServerLayout:
    """The server's state, under DSTACK_HOME. `identity` is the server's private key, for runners that authorize it. A
    backup is unpacked in `restoring`; once that is complete it becomes `restored`, which every server that starts puts
    in place. `newest` counts the events and starts that are known to be on disk: a database with fewer is an older
    copy."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "config.json"
        self.state = home / "server"
        self.database = self.state / "state.db"
        self.identity = self.state / "id_ed25519"
        self.secret_key = self.state / "secret.key"
        self.server_id = self.state / "server-id"
        self.newest = self.state / "newest-event"
        self.lock = self.state / "lock"
        self.server_log = self.state / "server.log"
        self.logs = self.state / "logs"
        self.mirrors = self.state / "mirrors"
        self.artifacts = self.state / "artifacts"
        self.incoming = self.state / "incoming"
        self.restoring = self.state / "restore.new"
        self.restored = self.state / "restore.ready"

    @property
    def server_logs(self) -> list[Path]:
        """The files of the server's log, oldest first. Only those that it needed exist."""
        full = [self.server_log.with_name(f"{self.server_log.name}.{n}") for n in range(KEPT_LOGS, 0, -1)]
        return [*full, self.server_log]

    def log(self, job: str) -> Path:
        return self.logs / job

    def metrics(self, job: str) -> Path:
        return self.logs / f"{job}.metrics"

    def mirror(self, repo: str) -> Path:
        return self.mirrors / f"{repo}.git"
