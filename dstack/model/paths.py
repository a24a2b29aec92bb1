"""The name of every file and folder of dstack's: on a host, in a container, in the server's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONTAINER_IO = "/.dstack"
CONTAINER_TREE = "/workflow"
CONTAINER_OBJECTS = f"{CONTAINER_IO}/objects"

TAR_COMPLETE = ".dstack/.artifacts-complete"
"""The last entry of a tar of artifacts. A stream that was cut between two entries looks whole to tar without it."""


@dataclass(frozen=True)
class HostLayout:
    """Where a server's things lie on one host: `<root>/<machine>/<server>/`.

    `root` may begin with `~/`. Machines that share a home tell themselves apart by `machine`, servers that share a
    machine by `server`. The paths below are relative to that folder.
    """

    root: str
    machine: str
    server: str

    @staticmethod
    def job(attempt: str) -> str:
        """The folder of one attempt of a job, named by the id that the server made."""
        return f"jobs/{attempt}"

    @staticmethod
    def kept(attempt: str) -> str:
        """What stays of the attempt's artifacts once its folder is gone."""
        return f"kept/{attempt}"

    @staticmethod
    def mirror(repo: str) -> str:
        """The bare repository that holds a project's objects."""
        return f"mirrors/{repo}.git"

    @staticmethod
    def cache(repo: str, name: str) -> str:
        """A folder that jobs of a project share, one after the other and at once."""
        return f"caches/{repo}/{name}"


def attempt_id(job: str, attempt: int) -> str:
    """The name of an attempt: the job's own id for the first, `<id>-2` for the second."""
    return job if attempt == 1 else f"{job}-{attempt}"


def container(attempt: str) -> str:
    """The container's name."""
    return f"dstack-{attempt}"


@dataclass(frozen=True)
class ServerLayout:
    """The server's state, under DSTACK_HOME."""

    home: Path

    @property
    def config(self) -> Path:
        return self.home / "config.json"

    @property
    def state(self) -> Path:
        return self.home / "server"

    @property
    def database(self) -> Path:
        return self.state / "state.db"

    @property
    def identity(self) -> Path:
        """The server's own private key, for machines that let it in."""
        return self.state / "id_ed25519"

    @property
    def secret_key(self) -> Path:
        return self.state / "secret.key"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def server_log(self) -> Path:
        return self.state / "server.log"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def mirrors(self) -> Path:
        return self.state / "mirrors"

    @property
    def artifacts(self) -> Path:
        return self.state / "artifacts"

    @property
    def incoming(self) -> Path:
        return self.state / "incoming"

    def log(self, job: str) -> Path:
        return self.logs / job

    def metrics(self, job: str) -> Path:
        return self.logs / f"{job}.metrics"

    def mirror(self, repo: str) -> Path:
        return self.mirrors / f"{repo}.git"
