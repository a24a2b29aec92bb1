"""An SSH server in the test's process, and a connection to it that can be cut, frozen or slowed down."""

from __future__ import annotations

import asyncio
import os
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

import asyncssh
from asyncssh.stream import SSHServerStreamSession

from dstack.commands.host import TerminalSize
from dstack.hosts.pty import Pty
from dstack.model.runner.runner import Address


class Server:
    """Runs commands with this machine's sh, unless a test makes it misbehave.

    `sessions` is how many it takes at once; `opening` is waited for before a session is opened; `ending` says how a
    command ends: "status", "silence" or the name of a signal; `shell` is run in place of the command; `forwards` lets
    clients jump through it; `terminals` lets them have a terminal.
    """

    def __init__(self, folder: Path, kind: str = "ssh-ed25519", identity: str = "id", at: str = "127.0.0.1") -> None:
        self.at = at
        self.key = asyncssh.generate_private_key(kind)
        self.identity = folder / identity
        if not self.identity.exists():
            client = asyncssh.generate_private_key("ssh-ed25519")
            client.write_private_key(str(self.identity))
            self.identity.chmod(0o600)
            client.write_public_key(f"{self.identity}.pub")
        self.certificate: asyncssh.SSHCertificate | None = None
        self.more_keys: list[asyncssh.SSHKey] = []
        self.sessions = 100
        self.opening: asyncio.Event | None = None
        self.ending = "status"
        self.shell: list[str] | None = None
        self.forwards = False
        self.terminals = True
        self.forwarded: list[tuple[str, int]] = []
        self.clients: list[asyncssh.SSHServerConnection] = []
        self.logins: list[str] = []
        self.commands: list[str] = []
        self.asked = 0
        self.open = 0
        self.running: list[asyncio.Task[Any]] = []
        self.processes: dict[Any, asyncio.subprocess.Process] = {}
        self.ptys: dict[Any, Pty] = {}
        self.port = 0

    @property
    def host_key(self) -> str:
        return " ".join(self.key.export_public_key().decode().split()[:2])

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.port, user="someone", identity=str(self.identity))

    @property
    def connected(self) -> list[asyncssh.SSHServerConnection]:
        return [client for client in self.clients if not client.is_closed()]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Server]:
        acceptor = await asyncssh.listen(
            self.at,
            self.port,
            server_factory=lambda: _Owner(self),
            server_host_keys=[(self.key, self.certificate) if self.certificate else self.key, *self.more_keys],
            authorized_client_keys=f"{self.identity}.pub",
            encoding=None,
            line_editor=False,
        )
        self.port = acceptor.get_port()
        try:
            yield self
        finally:
            acceptor.close()
            for client in self.clients:
                client.abort()
            await acceptor.wait_closed()
            for process in self.processes.values():
                _kill(process, SIGKILL)
                process._transport.close()  # type: ignore[attr-defined]  # it waits for the end of unread pipes, too
                await process.wait()
            for task in self.running:
                await asyncio.wait({task})

    async def run(
        self, stdin: asyncssh.SSHReader[bytes], stdout: asyncssh.SSHWriter[bytes], stderr: asyncssh.SSHWriter[bytes]
    ) -> None:
        task = asyncio.current_task()
        assert task
        self.running.append(task)
        channel: Any = stdin.channel
        command = channel.get_command()
        self.commands.append(command)
        words = self.shell or ["sh", "-c", command]
        if channel.get_terminal_type():
            assert channel.get_terminal_mode(asyncssh.constants.PTY_ICANON) == 0, (
                "the script would not arrive unchanged"
            )
            columns, rows, *_ = channel.get_terminal_size()
            with Pty(TerminalSize(columns, rows)) as pty:
                process = await asyncio.create_subprocess_exec(
                    *("setsid", "--ctty", *words), stdin=pty.user, stdout=pty.user, stderr=pty.user
                )
                await pty.connect(65536)
            self.ptys[channel] = pty
            feeding = asyncio.ensure_future(_copy(stdin, pty.writer))
            copying = [_copy(pty.reader, stdout)]
        else:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
            feeding = asyncio.ensure_future(_copy(stdin, process.stdin, last=True))
            copying = [_copy(process.stdout, stdout), _copy(process.stderr, stderr)]
        self.processes[channel] = process
        try:
            await asyncio.gather(*copying)
            status = await process.wait()
            if self.ending == "status" and status >= 0:
                channel.exit(status)
            elif self.ending == "status":
                channel.exit_with_signal(Signals(-status).name.removeprefix("SIG"))
            elif self.ending == "silence":
                channel.close()
            else:
                channel.exit_with_signal(self.ending)
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})
            if channel in self.ptys:
                self.ptys.pop(channel).close()


class _Session(SSHServerStreamSession[bytes]):
    def __init__(self, server: Server) -> None:
        super().__init__(server.run)
        self._server = server
        server.open += 1

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:
        return self._server.terminals

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._server.ptys[self._chan].resize(width, height)

    def signal_received(self, signal: str) -> None:
        process = self._server.processes.get(self._chan)
        if process is not None:
            _kill(process, Signals[f"SIG{signal}"])

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open -= 1
        super().connection_lost(exc)


class _Owner(asyncssh.SSHServer):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._server.clients.append(conn)

    def begin_auth(self, username: str) -> bool:
        self._server.logins.append(username)
        return True

    def session_requested(self) -> Any:
        return self._session()

    async def _session(self) -> _Session:
        server = self._server
        server.asked += 1
        if server.opening is not None:
            await server.opening.wait()
        if server.open >= server.sessions:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "open failed")
        return _Session(server)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        self._server.forwarded.append((dest_host, dest_port))
        return self._server.forwards


class Way:
    """Forwards connections to a port. It resets the next `drops` of them at once."""

    def __init__(self, to: int, drops: int = 0) -> None:
        self._to = to
        self.drops = drops
        self.accepted = 0
        self.times: list[float] = []
        self.port = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def freeze(self) -> None:
        """Stop forwarding, without closing anything."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward what has arrived, and continue."""
        self._flowing.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Way]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.accepted += 1
        self.times.append(time.monotonic())
        if self.drops > 0:
            self.drops -= 1
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            writer.transport.abort()
            back.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


async def _copy(reader: Any, writer: Any, last: bool = False) -> None:
    with suppress(ConnectionError, asyncssh.Error):
        while data := await reader.read(1 << 30):  # all that came: asyncssh's memory grows without end otherwise
            writer.write(data)
            await writer.drain()
    if last:
        writer.close()


def _kill(process: asyncio.subprocess.Process, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
