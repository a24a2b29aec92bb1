"""`dstack-runner`: tells a dstack server that the machine on which it runs may be used, and when it may not.

It runs nothing of anybody's: it lets the server's public key in, and the server comes over SSH. Standard library only,
one file, Python 3.8 and newer, so that `curl -fsS SERVER/dstack-runner | DSTACK_TOKEN=T python3 -` is enough.
"""

from __future__ import annotations

import argparse
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
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from typing import Any

SERVER = ""
"""The server that handed this file out; empty in an installed one."""

INTERVAL = 10.0
"""Seconds between two signs of life."""
SECONDS = 120.0
"""For an answer: the server looks at the machine before it gives the first one."""


class RunnerError(Exception):
    """Something that a person is told in one line, with what to type next."""

    def __init__(self, message: str, hint: str = "", code: int = 125) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class GoneError(RunnerError):
    """The server knows this machine no more."""


def say(text: str) -> None:
    print(f"dstack-runner: {text}", file=sys.stderr, flush=True)


# The server


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self.path)


class Server:
    """Where registrations go: a URL, or the path of a socket."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url[len("unix://") :] if url.startswith("unix://") else url.rstrip("/")
        self.token = token
        if not self.url.startswith(("/", "http://", "https://")):
            raise RunnerError(f"'{url}' is not the address of a server", "--server http://HOST:PORT", 2)

    @property
    def unix(self) -> bool:
        return self.url.startswith("/")

    def connection(self) -> http.client.HTTPConnection:
        if self.unix:
            return Unix(self.url)
        parts = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=SECONDS)

    def own_address(self) -> str:
        """The address of this machine on the way to the server."""
        if self.unix:
            return "127.0.0.1"
        connection = self.connection()
        try:
            connection.connect()
            return str(connection.sock.getsockname()[0])
        finally:
            connection.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. OSError when the server is out of reach."""
        prefix = "" if self.unix else urllib.parse.urlsplit(self.url).path
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self.connection()
        try:
            connection.request("POST", f"{prefix}/v1{path}", json.dumps(body), headers)
            response = connection.getresponse()
            data = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"the answer broke: {error!r}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(data)
        except ValueError:
            raise RunnerError(f"what answers at {self.url} is not a dstack server (status {response.status})") from None
        if response.status >= 400:
            kind = GoneError if response.status == 404 else RunnerError
            raise kind(answer.get("message", "refused"), answer.get("hint") or "", answer.get("exit_code", 125))
        return dict(answer)


def default_server() -> str:
    """DSTACK_SERVER_URL, who handed this file out, what `dstack config --url` saved, or the user's own on this
    machine."""
    if os.environ.get("DSTACK_SERVER_URL") or SERVER:
        return os.environ.get("DSTACK_SERVER_URL") or SERVER
    home = os.environ.get("DSTACK_HOME") or os.path.expanduser("~/.dstack")
    try:
        with open(os.path.join(home, "config.json"), encoding="utf-8") as file:
            saved = json.load(file).get("url")
    except (OSError, ValueError):
        saved = None
    own = os.path.join(home, "server", "socket")
    if not saved and not os.path.exists(own):
        raise RunnerError("which server?", "--server http://HOST:PORT, or DSTACK_SERVER_URL", 2)
    return str(saved or own)


# This machine


def host_keys(files: list[str]) -> list[str]:
    """The public keys by which SSH clients know this machine: type and base64."""
    keys = []
    for path in files or sorted(glob.glob("/etc/ssh/ssh_host_*_key.pub")):
        try:
            with open(path, encoding="utf-8") as file:
                keys.append(" ".join(file.read().split()[:2]))
        except OSError as error:
            raise RunnerError(f"{path} can't be read: {error.strerror}", "name one with --host-key FILE") from error
    if not keys:
        raise RunnerError("this machine has no SSH host keys", "sudo apt-get install openssh-server")
    return keys


def ssh_port() -> int:
    """The port in sshd_config, else 22."""
    try:
        with open("/etc/ssh/sshd_config", encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if len(words) > 1 and words[0].lower() == "port" and words[1].isdigit():
                    return int(words[1])
    except OSError:
        return 22
    return 22


def output(*words: str) -> str:
    """What a program prints; "" where it is missing or fails."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def gpus() -> list[str]:
    """The names of the GPUs."""
    listed = output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [line.strip() for line in listed.splitlines() if line.strip()]


def foreign_use() -> str:
    """Who uses the GPUs beside dstack's own jobs, in words; "" for nobody."""
    listed = output("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader").splitlines()
    ours = output("docker", "ps", "--no-trunc", "--quiet", "--filter", "label=dstack.job").split()
    foreign = []
    for line in listed:
        pid, _, name = line.partition(",")
        if pid.strip().isdigit() and not any(container in cgroup(pid.strip()) for container in ours):
            foreign.append(f"{os.path.basename(name.strip()) or 'a process'} ({pid.strip()})")
    return ", ".join(foreign)


def cgroup(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


# The key


def key_file() -> tuple[str, str]:
    """~/.ssh and authorized_keys in it, of the user's own home as sshd sees it. RunnerError where one is a link."""
    folder = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".ssh")
    path = os.path.join(folder, "authorized_keys")
    for each in (folder, path):
        if os.path.islink(each):
            raise RunnerError(f"{each} is a link, which is not followed; the server's key was not let in")
    return folder, path


def read_keys(path: str) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def write_keys(folder: str, path: str, text: bytes) -> None:
    """Replace the file at once, with the mode that it had."""
    mode = stat.S_IMODE(os.lstat(path).st_mode) if os.path.exists(path) else 0o600
    number, aside = tempfile.mkstemp(prefix=".dstack.", dir=folder)
    with os.fdopen(number, "wb") as file:
        file.write(text)
    os.chmod(aside, mode)
    os.replace(aside, path)


def let_in(key: str, server: str) -> None:
    """Let the server's key in, restricted to running commands. Behind its marker stands what was made for it."""
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
    write_keys(folder, path, before + f"restrict {key} dstack-server-{server}{made}\n".encode())


def let_out(server: str) -> None:
    """Take the server's key out, and what was made for it."""
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


# Being available


class Registration:
    """This machine at one server."""

    def __init__(self, server: Server, options: argparse.Namespace) -> None:
        self.server = server
        self.options = options
        self.stop = threading.Event()
        self.why = ""
        self.name = ""
        self.secret = ""
        self.id = ""
        self.said = ""

    def run(self) -> int:
        """Register, and say that the machine is available until it is not; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self.end("dstack-runner was stopped"))
        until = ends_at(self.options.until) if self.options.until else None
        self.register()
        if self.options.once:
            return self.once()
        while not self.stop.is_set():
            self.beat()
            if until is not None and time.time() >= until:
                self.end(f"available until {self.options.until} only")
            self.stop.wait(min(self.options.interval, max(until - time.time(), 0.0) if until else 1e9))
        self.leave()
        return 0

    def end(self, why: str) -> None:
        self.why = self.why or why
        self.stop.set()

    def register(self) -> None:
        """Introduce the machine. The server may want a person to approve it."""
        options = self.options
        address, port = host_and_port(options.address or self.server.own_address())
        try:
            answer = self.server.post(
                "/registrations",
                {
                    "name": options.name or socket.gethostname().split(".")[0],
                    "address": address,
                    "port": options.port or port or ssh_port(),
                    "user": getpass.getuser() if os.getuid() else "root",
                    "labels": options.label,
                    "host_keys": host_keys(options.host_key),
                    "gpus": gpus(),
                    "root": options.root,
                    "docker": options.docker,
                },
            )
        except OSError as error:
            raise RunnerError(f"the server at {self.server.url} is out of reach: {error}", code=75) from error
        self.name, self.secret, self.id = answer["name"], answer["secret"], answer["server"]
        let_in(answer["key"], self.id)

    def beat(self) -> str:
        """One sign of life; the state that the server tells."""
        foreign = foreign_use() if self.options.unless_busy else ""
        reason = f"its GPUs are used by {foreign}" if foreign else None
        try:
            answer = self.tell(reason)
        except OSError as error:
            self.tell_user(f"the server is out of reach: {error}; trying again")
            return "unknown"
        self.tell_user(answer["words"])
        return str(answer["state"])

    def tell(self, unavailable: str | None) -> dict[str, Any]:
        body = {"secret": self.secret, "unavailable": unavailable, "interval": self.options.interval}
        body["once"] = self.options.once
        return self.server.post(f"/registrations/{urllib.parse.quote(self.name, safe='')}/heartbeat", body)

    def tell_user(self, words: str) -> None:
        if words != self.said:
            self.said = words
            say(words)

    def once(self) -> int:
        state = self.beat()
        return 0 if state == "ready" else 75 if state in ("pending", "unknown") else 125

    def leave(self) -> None:
        """Say that the machine is no longer offered, and take the key out if asked to."""
        say(f"{self.why}; {self.name} gets no new jobs")
        try:
            self.tell(self.why)
        except (OSError, RunnerError) as error:
            say(f"the server could not be told: {error}; it notices by itself")
        if self.options.cleanup:
            let_out(self.id)


def ends_at(text: str) -> float:
    """The next time that the clock shows HH:MM or HH:MM:SS, in seconds since the epoch."""
    try:
        hour, minute, second = [int(part) for part in (text if text.count(":") > 1 else text + ":00").split(":")]
        now = datetime.datetime.now()
        moment = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError:
        raise RunnerError(f"'{text}' is no time of day", "--until 18:00", 2) from None
    return (moment if moment > now else moment + datetime.timedelta(days=1)).timestamp()


def host_and_port(address: str) -> tuple[str, int | None]:
    """`host:2222` and `[::1]:2222` in their parts; an IPv6 address without brackets has no port."""
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d+))?", address)
    return (found[1] or found[2], int(found[3]) if found[3] else None) if found else (address, None)


UNIT = """\
# ~/.config/systemd/user/dstack-runner.service
# systemctl --user daemon-reload && systemctl --user enable --now dstack-runner; loginctl enable-linger
# The token stands in ~/.config/dstack-runner.env: DSTACK_TOKEN=...
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
    """A user unit that runs this program with these arguments."""
    program, first = os.path.abspath(sys.argv[0]), ""
    if not os.path.isfile(program):  # it came through a pipe
        program = os.path.expanduser("~/dstack-runner")
        first = f"# curl -fsS {SERVER or 'SERVER'}/dstack-runner -o {program}\n"
    words = [program] if os.access(program, os.X_OK) else [sys.executable, program]
    words += without_token(arguments)
    if SERVER and "--server" not in words:
        words += ["--server", SERVER]
    return first + UNIT.format(command=" ".join(shlex.quote(word).replace("%", "%%") for word in words))


def without_token(arguments: list[str]) -> list[str]:
    """The same arguments for a unit, which others can read."""
    left = iter(arguments)
    kept = []
    for word in left:
        if word == "--token":
            next(left, None)
        elif word != "--systemd" and not word.startswith("--token="):
            kept.append(word)
    return kept


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="dstack-runner",
        allow_abbrev=False,
        description="Offers this machine to a dstack server for as long as this runs. It lets the server's public key "
        "in; the server comes over SSH.",
    )
    made.add_argument("--server", metavar="URL", help="the server; default: DSTACK_SERVER_URL, or the user's own")
    made.add_argument("--token", metavar="T", help="what the server asks for; default: DSTACK_TOKEN")
    made.add_argument("--name", help="what to call the machine; default: its host name")
    made.add_argument("--label", action="append", default=[], help="a label that runs can ask for; repeatable")
    made.add_argument(
        "--address", help="where the server reaches it, HOST or HOST:PORT; default: how it reaches the server"
    )
    made.add_argument("--port", type=int, help="the port of its SSH server; default: what sshd_config says")
    made.add_argument("--host-key", action="append", default=[], metavar="FILE", help="a public host key; repeatable")
    made.add_argument("--root", metavar="DIR", help="where it keeps dstack's files; default: ~/.dstack-host")
    made.add_argument("--docker", metavar="COMMAND", help="docker, podman, or 'sudo -n docker'")
    made.add_argument("--until", metavar="HH:MM", help="offer it until this time of day; HH:MM:SS will do, too")
    made.add_argument("--unless-busy", action="store_true", help="don't offer it while others use its GPUs")
    made.add_argument("--once", action="store_true", help="register, and offer it without further signs of life")
    made.add_argument("--cleanup", action="store_true", help="take the server's key out again at the end")
    made.add_argument("--interval", type=float, default=INTERVAL, metavar="S", help="seconds between signs of life")
    made.add_argument("--systemd", action="store_true", help="print a systemd user unit that runs this command")
    return made


def main() -> None:
    """The console script."""
    options = parser().parse_args()
    if options.systemd:
        print(systemd_unit(sys.argv[1:]), end="")
        return
    try:
        server = Server(options.server or default_server(), options.token or os.environ.get("DSTACK_TOKEN"))
        code = Registration(server, options).run()
    except RunnerError as error:
        print(f"dstack-runner: error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        code = error.code
    sys.exit(code)


if __name__ == "__main__":
    main()
