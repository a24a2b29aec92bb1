"""A real OpenSSH server on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.environment import needs
from tests.environment.waiting import until

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PrintLastLog no
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


class Sshd:
    """sshd with its own host key, client key and port. `identity` is the private key that it accepts.

    `options` are further lines of its configuration; `first` are lines at the top, which win.
    """

    def __init__(self, folder: Path, user: str, options: Iterable[str] = ()) -> None:
        self.folder = folder
        self.user = user
        self.host = "127.0.0.1"
        self.port = free_port()
        self.identity = folder / "id_ed25519"
        self._options = tuple(options)
        self.first: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host_key(self) -> str:
        """The public host key in OpenSSH's format: type and base64."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint, `SHA256:...`."""
        asked = ["ssh-keygen", "-l", "-f", str(self.folder / "host_key.pub")]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[1]

    @property
    def log(self) -> str:
        """sshd's log so far."""
        return (self.folder / "log").read_text()

    def ssh(self, *command: str) -> list[str]:
        """An `ssh` command line that reaches this server and touches no file of the developer."""
        known = self.folder / "known_hosts"
        known.write_text(f"[{self.host}]:{self.port} {self.host_key}\n")
        options = ("BatchMode=yes", f"UserKnownHostsFile={known}", "IdentitiesOnly=yes", "IdentityAgent=none")
        flags = [word for option in options for word in ("-o", option)]
        login = ("-i", str(self.identity), "-p", str(self.port), f"{self.user}@{self.host}")
        return ["ssh", "-F", "none", *flags, *login, *command]

    def start(self) -> None:
        """Start sshd on the same port and with the same key as before, and wait until it answers."""
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            needs.missing("sshd is not installed; install it: apt-get install openssh-server")
        self._prepare()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        arguments = [program, "-D", "-f", str(self.folder / "config"), "-E", str(self.folder / "log")]
        self._process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, start_new_session=True)
        until(self._answers, f"sshd answers on port {self.port}")

    def close(self) -> None:
        """Stop sshd. Open connections stay open."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def cut(self) -> None:
        """Cut every open connection, as a failing network does. sshd keeps running."""
        assert self._process is not None, "sshd was not started"
        for pid in descendants(self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended with its parent

    def kill(self) -> None:
        """kill -9 of sshd and of all its connections."""
        assert self._process is not None, "sshd was not started"
        self._process.send_signal(signal.SIGSTOP)  # so that it accepts none meanwhile
        self.cut()
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Accept connections without a word, until `thaw`. Open connections work."""
        assert self._process is not None, "sshd was not started"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process is not None, "sshd was not started"
        self._process.send_signal(signal.SIGCONT)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        if not self.identity.exists():
            for key in (self.folder / "host_key", self.identity):
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
            shutil.copy(f"{self.identity}.pub", self.folder / "authorized_keys")
        lines = [
            *self.first,
            CONFIG.format(port=self.port, folder=self.folder),
            f"AllowUsers {self.user}",
            *self._options,
        ]
        (self.folder / "config").write_text("\n".join(lines) + "\n")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"sshd ended with {self._process.returncode}:\n{self.log}")
        try:
            with socket.create_connection((self.host, self.port), 1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def descendants(pid: int) -> list[int]:
    """Return the processes that sshd forked for connections, but not what users started in them."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    ours = [child for child in map(int, children) if process_name(child).startswith("sshd")]
    return [found for child in ours for found in (child, *descendants(child))]


def process_name(pid: int) -> str:
    """Return the short name of a process, "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
