"""A Docker daemon for tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.environment import needs
from tests.environment.waiting import until


class Daemon:
    """dockerd with its own socket, state and network namespace, invisible to other daemons on the machine.

    Containers have only a loopback network. They survive the daemon (live-restore), so a test can `kill` it and `start`
    it again. `close` removes them and everything else. The folder `programs` comes first on its PATH: Docker looks for
    NVIDIA's hook when it starts.
    """

    def __init__(self, folder: Path, socket: Path | None = None, programs: Path | None = None) -> None:
        self.folder = folder
        self._programs = programs
        self.socket = socket or folder / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """The start of a docker command line that reaches this daemon."""
        return ["docker", "-H", f"unix://{self.socket}"]

    @property
    def pid(self) -> int:
        """dockerd's process id."""
        assert self._process is not None, "dockerd was not started"
        return self._process.pid

    def docker(self, *arguments: str) -> str:
        """Run `docker ARGUMENTS`; return its output without the last newline."""
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout.rstrip("\n")

    def start(self, *options: str) -> None:
        """Start dockerd and wait until it answers."""
        needs.root("a Docker daemon of its own")
        if not shutil.which("dockerd"):
            needs.missing("dockerd is not installed; install it: apt-get install docker.io")
        mount_cgroups()
        self.folder.mkdir(parents=True, exist_ok=True)
        pidfile = self.folder / "docker.pid"
        for left in (pidfile, self._containerd()):
            left.unlink(missing_ok=True)
        arguments = [
            *("--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "--pidfile", pidfile),
            *("--host", f"unix://{self.socket}", "--live-restore", "--bridge", "none", "--iptables=false"),
            *("--config-file", self._configuration(), *options),
        ]
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                [*self._alone(), "dockerd", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PATH": f"{self._programs or '/usr/sbin'}:{os.environ['PATH']}"},
            )
        until(self._answers, f"dockerd answers at {self.socket}; its log is {self._log()}", 90)

    def _alone(self) -> list[str]:
        """Enter a new network namespace, because `--bridge none` removes the bridge of any other daemon in this one."""
        others = subprocess.run(["pgrep", "-x", "dockerd"], stdout=subprocess.DEVNULL, check=False).returncode == 0
        return ["unshare", "--net"] if others else []

    def kill(self) -> None:
        """`kill -9`: containers keep running, and their clients learn nothing."""
        assert self._process is not None, "dockerd was not started"
        containerd = int(self._containerd().read_text())
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        until(lambda: ended(containerd), "containerd has ended with its dockerd")

    def stop(self) -> None:
        """Stop dockerd as `systemctl stop docker` does. With live-restore, containers keep running."""
        assert self._process is not None, "dockerd was not started"
        self._process.terminate()
        self._process.wait(60)

    def close(self) -> None:
        """Remove all containers, stop, and remove every file."""
        if self._process is not None:
            if self._process.poll() is not None:
                self.start()
            until(self._empty, "no container is left", 60)
            self.stop()
            self._process = None
        for mount in reversed(mounts_below(self.folder)):
            subprocess.run(["umount", "--lazy", mount], check=True)
        self.socket.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def _empty(self) -> bool:
        """Remove all containers. Docker refuses if a removal is already in progress, so only the result is checked."""
        containers = self.docker("ps", "-aq").split()
        if containers:
            subprocess.run([*self.command, "rm", "-f", *containers], capture_output=True, check=False)
        return not containers

    def _configuration(self) -> Path:
        """A daemon.json of its own, so that the one in /etc is not read. Before version 23, Docker kept its id in /etc:
        then the daemons of several test machines would have the same one."""
        path = self.folder / "daemon.json"
        said = subprocess.run(["dockerd", "--version"], capture_output=True, text=True, check=True).stdout
        old = int(said.split()[2].partition(".")[0]) < 23
        path.write_text(json.dumps({"deprecated-key-path": str(self.folder / "key.json")} if old else {}))
        return path

    def _containerd(self) -> Path:
        """The pidfile of the daemon's containerd. A new dockerd would mistake a zombie with that id for it."""
        return self.folder / "exec" / "containerd" / "containerd.pid"

    def _log(self) -> Path:
        return self.folder / "dockerd.log"

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"dockerd ended with {self._process.returncode}:\n{self._log().read_text()[-2000:]}")
        return subprocess.run([*self.command, "info"], capture_output=True, check=False).returncode == 0


def answers() -> bool:
    """Whether plain `docker` reaches a daemon."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def ended(pid: int) -> bool:
    """Whether a process is gone, or is a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def mount_cgroups() -> None:
    """Mount the control groups if nothing has, as in a bare virtual machine and some containers."""
    place = Path("/sys/fs/cgroup")
    if any(place.iterdir()):
        return
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", place], check=True)


def mounts_below(folder: Path) -> list[str]:
    """Return the mount points in a folder, outermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return sorted(mount for mount in (line.split()[1] for line in lines) if mount.startswith(f"{os.fspath(folder)}/"))
