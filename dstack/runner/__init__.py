"""`dstack-runner`: offers the machine on which it runs to a dstack server, for as long as it runs.

It runs no jobs: it authorizes the server's public key, and the server connects over SSH. It is one file for Python 3.8
and newer and needs only the standard library, so `curl -fsS SERVER/dstack-runner | DSTACK_TOKEN=T python3 -` is enough.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import getpass
import glob
import http.client
import json
import os
import pwd
import re
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

SERVER = ""
"""The server from which this file was downloaded; empty in an installed copy."""

INTERVAL = 10.0
"""Seconds between two heartbeats."""
SECONDS = 120.0
"""Seconds to wait for an answer: the server checks the machine before it answers the first heartbeat."""


class RunnerError(Exception):
    """An error that is shown in one line, with a hint at what to type next."""

    def __init__(self, message: str, hint: str = "", code: int = 125) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def say(text: str) -> None:
    print(f"dstack-runner: {text}", file=sys.stderr, flush=True)


# The server


class Server:
    """The server to register with: a URL, or the path of a socket."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url[len("unix://") :] if url.startswith("unix://") else url.rstrip("/")
        self.token = token
        if not (self.unix or valid(self.url)):
            raise RunnerError(f"'{url}' is not a valid server URL", "write --server http://HOST:PORT", 2)

    @property
    def unix(self) -> bool:
        return self.url.startswith("/")

    def connect(self) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit("http://localhost" if self.unix else self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=SECONDS)
        if parts.scheme == "https" and os.environ.get("DSTACK_TLS_CA"):
            context = ssl.create_default_context()
            context.load_verify_locations(os.environ["DSTACK_TLS_CA"])
            connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=SECONDS, context=context)
        if self.unix:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(SECONDS)
            connection.sock.connect(self.url)
        else:
            try:
                connection.connect()
            except ssl.SSLCertVerificationError as error:
                message = f"the certificate of {self.url} can't be trusted: {error.verify_message}"
                hint = "if your own authority issued it, set DSTACK_TLS_CA to a file with that authority's certificate"
                raise RunnerError(message, hint) from error
        return connection

    def own_address(self) -> str:
        """Return this machine's address on the route to the server."""
        if self.unix:
            return "127.0.0.1"
        with contextlib.closing(self.connect()) as connection:
            return str(connection.sock.getsockname()[0])

    def post(self, path: str, body: dict[str, Any], *needed: str) -> dict[str, Any]:
        """Send a request and return the answer, which has the `needed` fields. Raises OSError if the server can't be
        reached, or can't answer now."""
        prefix = "" if self.unix else urllib.parse.urlsplit(self.url).path
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            with contextlib.closing(self.connect()) as connection:
                connection.request("POST", f"{prefix}/v1{path}", json.dumps(body), headers)
                response = connection.getresponse()
                data = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"the answer was cut off: {error!r}") from error
        try:
            answer = dict(json.loads(data))
        except (ValueError, TypeError):
            answer = {}
        status = response.status
        if status in (502, 503, 504):  # a proxy answers so while the server behind it is restarted
            raise OSError(answer.get("message") or f"it can't answer now (HTTP status {status})")
        if status >= 400 and "message" in answer:
            raise RunnerError(str(answer["message"]), str(answer.get("hint") or ""), answer.get("exit_code", 125))
        if status >= 400 or not answer.keys() >= set(needed):
            hint = "check --server; `dstack server status` on the server's machine shows its URL"
            raise RunnerError(f"{self.url} is not a dstack server (HTTP status {status})", hint)
        return answer


def valid(url: str) -> bool:
    """Whether this is a URL of a server."""
    try:
        parts = urllib.parse.urlsplit(url)
        named = bool(parts.hostname) and not re.search(r"[\x00-\x20\x7f]", parts.netloc)
        return parts.scheme in ("http", "https") and named and parts.port != 0
    except ValueError:
        return False


def default_server() -> str:
    """Return the server to use: DSTACK_SERVER_URL, the server that this file came from, the one that `dstack config
    --url` saved, or the user's own server on this machine."""
    if os.environ.get("DSTACK_SERVER_URL") or SERVER:
        return os.environ.get("DSTACK_SERVER_URL") or SERVER
    home = os.environ.get("DSTACK_HOME") or os.path.expanduser("~/.dstack")
    try:
        saved = json.loads(contents(os.path.join(home, "config.json"))).get("url")
    except ValueError:
        saved = None
    own = os.path.join(home, "server", "socket")
    if not saved and not os.path.exists(own):
        raise RunnerError("no server is set", "add --server http://HOST:PORT, or set DSTACK_SERVER_URL", 2)
    return str(saved or own)


# This machine


def host_keys(files: list[str]) -> list[str]:
    """Return the public host keys of this machine's SSH server: type and base64."""
    keys = []
    for path in files or sorted(glob.glob("/etc/ssh/ssh_host_*_key.pub")):
        try:
            with open(path, encoding="utf-8") as file:
                keys.append(" ".join(file.read().split()[:2]))
        except OSError as error:
            raise RunnerError(f"{path} can't be read: {error.strerror}", "name another: --host-key FILE") from error
    if not keys:
        raise RunnerError("this machine has no SSH host keys", "sudo apt-get install openssh-server")
    return keys


def ssh_port() -> int:
    """Return the port in sshd_config, or 22."""
    line = re.search(r"^[ \t]*port[ \t]+(\d+)\b", contents("/etc/ssh/sshd_config"), re.IGNORECASE | re.MULTILINE)
    return int(line[1]) if line else 22


def contents(path: str) -> str:
    """Return the text of a file, or "" if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def output(*words: str) -> str:
    """Return what a program prints, or "" if it is missing or fails."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def gpus() -> list[str]:
    listed = output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [line.strip() for line in listed.splitlines() if line.strip()]


def foreign_use() -> str:
    """Return the processes other than dstack's jobs that use the GPUs, for a message; "" for none."""
    listed = output("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader").splitlines()
    ours = output("docker", "ps", "--no-trunc", "--quiet", "--filter", "label=dstack.job").split()
    foreign = []
    for line in listed:
        pid, _, name = (part.strip() for part in line.partition(","))
        if pid.isdigit() and not any(container in contents(f"/proc/{pid}/cgroup") for container in ours):
            foreign.append(f"{os.path.basename(name) or 'a process'} ({pid})")
    return ", ".join(foreign)


# The key


def key_file() -> tuple[str, str]:
    """Return ~/.ssh and its authorized_keys, in the home that sshd uses. Raises RunnerError if one is a link."""
    folder = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".ssh")
    path = os.path.join(folder, "authorized_keys")
    for each in (folder, path):
        if os.path.islink(each):
            raise RunnerError(f"{each} is a symbolic link, which is not followed; the server's key was not added")
    return folder, path


def read_keys(path: str) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def write_keys(folder: str, path: str, text: bytes) -> None:
    """Replace the file atomically, keeping its mode."""
    mode = stat.S_IMODE(os.lstat(path).st_mode) if os.path.exists(path) else 0o600
    number, aside = tempfile.mkstemp(prefix=".dstack.", dir=folder)
    with os.fdopen(number, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(aside, mode)
    os.replace(aside, path)


def let_in(key: str, server: str) -> None:
    """Authorize the server's key, restricted to running commands. The marker after it lists what was created for it."""
    folder, path = key_file()
    before = read_keys(path)
    if key.encode() in before:
        return
    made = ""
    if not os.path.isdir(folder):
        os.mkdir(folder, 0o700)
        made += ",dir"
    if not os.path.exists(path):
        made += ",file"
    elif before and not before.endswith(b"\n"):
        before += b"\n"
        made += ",newline"
    write_keys(folder, path, before + f"restrict,pty {key} dstack-server-{server}{made}\n".encode())


def let_out(server: str) -> None:
    """Remove the server's key, and what was created for it."""
    folder, path = key_file()
    marker = f"dstack-server-{server}".encode()
    lines = read_keys(path).splitlines(keepends=True)
    ours = [line for line in lines if line.split()[-1:] and line.split()[-1].split(b",")[0] == marker]
    if not ours:
        return
    made = ours[0].split()[-1].split(b",")[1:]
    text = b"".join(line for line in lines if line not in ours)
    write_keys(folder, path, text.rstrip(b"\n") if b"newline" in made else text)
    if b"file" in made and not text:
        os.unlink(path)
    if b"dir" in made and not os.listdir(folder):
        os.rmdir(folder)


# The registration


class Announcement:
    """This machine's registration at one server."""

    def __init__(self, server: Server, options: argparse.Namespace) -> None:
        self.server, self.options = server, options
        self.stop = threading.Event()
        self.why = self.last_words = ""

    def run(self) -> int:
        """Register, and send heartbeats until the machine is no longer available. Return the exit code."""
        until = ends_at(self.options.until) if self.options.until else None
        self.register()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self.end("dstack-runner was stopped"))
        if self.options.once:
            state = self.beat()
            return 0 if state == "ready" else 75 if state in ("pending", "unknown") else 125
        while not self.stop.is_set():
            self.beat()
            if until is not None and time.time() >= until:
                self.end(f"it was available until {self.options.until}")
            self.stop.wait(min(self.options.interval, max(until - time.time(), 0.0) if until else 1e9))
        self.leave()
        return 0

    def end(self, why: str) -> None:
        self.why = self.why or why
        self.stop.set()

    def register(self) -> None:
        """Register the machine. The server may require that an admin approves it."""
        options = self.options
        try:
            address, port = host_and_port(options.address or self.server.own_address())
        except OSError as error:
            raise self.unreachable(error) from error
        machine = {
            "name": options.name or socket.gethostname().split(".")[0],
            "address": address,
            "port": options.port or port or ssh_port(),
            "user": getpass.getuser() if os.getuid() else "root",
            "labels": options.label,
            "host_keys": host_keys(options.host_key),
            "gpus": gpus(),
            "root": options.root,
            "docker": options.docker,
        }
        try:
            answer = self.server.post("/registrations", machine, "name", "secret", "server", "key")
        except OSError as error:
            raise self.unreachable(error) from error
        self.name, self.secret, self.id = answer["name"], answer["secret"], answer["server"]
        let_in(answer["key"], self.id)

    def unreachable(self, error: OSError) -> RunnerError:
        hint = "check --server, and that the server runs: dstack server status"
        return RunnerError(f"can't reach the server at {self.server.url}: {words_of(error)}", hint, 75)

    def beat(self) -> str:
        """Send one heartbeat. Return the state that the server answers."""
        foreign = foreign_use() if self.options.unless_busy else ""
        try:
            answer = self.tell(f"its GPUs are used by {foreign}" if foreign else None)
        except OSError as error:
            answer = {"state": "unknown", "words": f"can't reach the server: {words_of(error)}; trying again"}
        if answer["words"] != self.last_words:
            self.last_words = answer["words"]
            say(self.last_words)
        return str(answer["state"])

    def tell(self, unavailable: str | None) -> dict[str, Any]:
        options = {"interval": self.options.interval, "once": self.options.once}
        body = {"secret": self.secret, "unavailable": unavailable, **options}
        return self.server.post(
            f"/registrations/{urllib.parse.quote(self.name, safe='')}/heartbeat", body, "state", "words"
        )

    def leave(self) -> None:
        """Tell the server that the machine is no longer available, and remove the key if asked to."""
        say(f"{self.why}; {self.name} gets no new jobs")
        used_by = []
        try:
            used_by = self.tell(self.why).get("key_used_by", [])
        except (OSError, RunnerError) as error:
            say(f"could not tell the server: {error}; it will notice that the heartbeats stopped")
        if self.options.cleanup and used_by:
            say(f"the server's key stays: {', '.join(used_by)} on this machine uses it")
        elif self.options.cleanup:
            let_out(self.id)


def words_of(error: OSError) -> str:
    """Return what went wrong, without the number that Python puts in front."""
    return str(error.strerror or error)


def ends_at(text: str) -> float:
    """Return the next time at which the clock shows HH:MM or HH:MM:SS, in seconds since the epoch."""
    try:
        hour, minute, second = [int(part) for part in (text if text.count(":") > 1 else text + ":00").split(":")]
        now = datetime.datetime.now()
        moment = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError:
        raise RunnerError(f"--until: '{text}' is not a time of day; write 18:00 or 18:00:30", code=2) from None
    return (moment if moment > now else moment + datetime.timedelta(days=1)).timestamp()


def host_and_port(address: str) -> tuple[str, int | None]:
    """Split `host:2222` or `[::1]:2222` into host and port. An IPv6 address without brackets has no port."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d+))?", address)
    return (match[1] or match[2], int(match[3]) if match[3] else None) if match else (address, None)


UNIT = """\
# ~/.config/systemd/user/dstack-runner.service
# systemctl --user daemon-reload && systemctl --user enable --now dstack-runner; loginctl enable-linger
# Put the token in ~/.config/dstack-runner.env: DSTACK_TOKEN=...
[Unit]
Description=Offers this machine to dstack
After=network-online.target

[Service]
EnvironmentFile=-%h/.config/dstack-runner.env
ExecStart={command}
Restart=on-failure
RestartPreventExitStatus=2
RestartSec=10

[Install]
WantedBy=default.target
"""


def systemd_unit(arguments: list[str]) -> str:
    """Return a systemd user unit that runs this program with these arguments."""
    program, first = os.path.abspath(sys.argv[0]), ""
    if not os.path.isfile(program):  # Python read it from a pipe
        program = os.path.expanduser("~/dstack-runner")
        first = f"# curl -fsS {SERVER or 'SERVER'}/dstack-runner -o {program}\n"
    words = [program] if os.access(program, os.X_OK) else [sys.executable, program]
    words += without_token(arguments)
    if SERVER and not any(word.partition("=")[0] == "--server" for word in words):
        words += ["--server", SERVER]
    return first + UNIT.format(command=" ".join(shlex.quote(word).replace("%", "%%") for word in words))


def without_token(arguments: list[str]) -> list[str]:
    """Return the arguments without the token: other users can read a unit."""
    left = iter(arguments)
    kept = []
    for word in left:
        if word == "--token":
            next(left, None)
        elif word != "--systemd" and not word.startswith("--token="):
            kept.append(word)
    return kept


def number(least: int, most: int, decimals: str = "") -> Callable[[str], float]:
    """Return what reads an argument that is a number from `least` to `most`; `decimals` is a pattern for its end."""

    def read(text: str) -> float:
        if re.fullmatch("[0-9]{1,9}" + decimals, text) and least <= float(text) <= most:
            return float(text) if "." in text else int(text)
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from {least} to {most}")

    return read


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="dstack-runner",
        allow_abbrev=False,
        description="Offer this machine to a dstack server for as long as this command runs. It adds the server's "
        "public key to ~/.ssh/authorized_keys; the server connects over SSH.",
    )
    made.add_argument("--server", metavar="URL", help="the server; default: DSTACK_SERVER_URL, or your own server")
    made.add_argument("--token", metavar="T", help="the server's token, or a registration token; default: DSTACK_TOKEN")
    made.add_argument("--name", help="name of the runner; default: the machine's host name")
    made.add_argument("--label", action="append", default=[], help="label that runs can require; repeatable")
    made.add_argument(
        "--address", help="address for the server to connect to, HOST or HOST:PORT; default: found automatically"
    )
    made.add_argument(
        "--port", type=number(1, 65535), help="port of this machine's SSH server; default: from sshd_config"
    )
    made.add_argument("--host-key", action="append", default=[], metavar="FILE", help="public host key; repeatable")
    made.add_argument("--root", metavar="DIR", help="folder for dstack's files; default: ~/.dstack-host")
    made.add_argument("--docker", metavar="COMMAND", help="docker, podman or 'sudo -n docker'")
    made.add_argument("--until", metavar="HH:MM", help="stop at this time of day; HH:MM:SS also works")
    made.add_argument("--unless-busy", action="store_true", help="take no new jobs while other programs use the GPUs")
    made.add_argument("--once", action="store_true", help="register and exit; the machine stays available")
    made.add_argument("--cleanup", action="store_true", help="remove the server's key at the end")
    seconds = number(0, 86400, r"(\.[0-9]{1,9})?")
    made.add_argument("--interval", type=seconds, default=INTERVAL, metavar="S", help="seconds between heartbeats")
    made.add_argument("--systemd", action="store_true", help="print a systemd user unit that runs this command")
    return made


def main() -> None:
    options = parser().parse_args()
    if options.systemd:
        print(systemd_unit(sys.argv[1:]), end="")
        return
    try:
        server = Server(options.server or default_server(), options.token or os.environ.get("DSTACK_TOKEN"))
        sys.exit(Announcement(server, options).run())
    except RunnerError as error:
        print(f"dstack-runner: error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.code)
    except OSError as error:  # a home that can't be written, or a full disk
        print(f"dstack-runner: error: {error.filename or 'this machine'}: {words_of(error)}", file=sys.stderr)
        sys.exit(125)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
