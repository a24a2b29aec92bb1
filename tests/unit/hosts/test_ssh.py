"""SSH with broken connections, sessions, keys and configurations."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import pytest

from dstack.commands.command import Command, Result, Stdin
from dstack.errors import HostAuthError, HostError, HostKeyError, HostUnreachableError
from dstack.hosts.ssh.dial import Dialer
from dstack.hosts.ssh.host import SshHost
from dstack.model.runner.runner import Address, fingerprint
from dstack.plumbing.clock import steady
from tests.unit.hosts.conftest import become, play
from tests.unit.hosts.servers import Server, Way

HELLO = Result(0, b"hello\n", b"")


def sh(script: str, stdin: Stdin = b"") -> Command[Result]:
    return Command("test", script, lambda result: result, stdin)


def at(address: Address, **changes: Any) -> Address:
    return msgspec.structs.replace(address, **changes)


@asynccontextmanager
async def host_on(
    server: Server, address: Address | None = None, *, patience: float = 1.0, **settings: Any
) -> AsyncIterator[SshHost]:
    dialer = Dialer(**settings)
    host = SshHost(address or server.address, server.host_key, name="box", dialer=dialer, patience=patience)
    try:
        yield host
    finally:
        await host.close()
        await dialer.close()


# --- connections


def test_one_connection_is_opened_on_first_use_and_kept(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            assert server.clients == []
            for _ in range(3):
                assert await host.run(sh("echo hello")) == HELLO
            await asyncio.gather(*(host.run(sh("echo hello")) for _ in range(20)))
            assert len(server.clients) == 1

    play(scene)


def test_callers_at_the_same_time_share_the_first_attempt(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            assert await asyncio.gather(*(host.run(sh("echo hello")) for _ in range(5))) == [HELLO] * 5
            assert len(server.clients) == 1

    play(scene)


def test_a_caller_that_gives_up_leaves_the_attempt_to_the_others(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            first = asyncio.ensure_future(host.run(sh("echo hello")))
            second = asyncio.ensure_future(host.run(sh("echo hello")))
            await become(lambda: len(server.clients) == 1, "the connection is being opened")
            first.cancel()
            assert await second == HELLO
            assert first.cancelled()
            assert len(server.clients) == 1

    play(scene)


def test_a_broken_connection_is_a_condition_and_the_next_use_opens_another(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            running = [asyncio.ensure_future(host.run(sh("echo part; sleep 1000"))) for _ in range(3)]
            await become(lambda: len(server.processes) == 3, "three commands run")
            server.clients[0].abort()
            for run in running:
                with pytest.raises(
                    HostUnreachableError, match=r"the connection broke.*; the command may or may not have finished"
                ):
                    await run
            assert await asyncio.gather(*(host.run(sh("echo hello")) for _ in range(5))) == [HELLO] * 5
            assert len(server.clients) == 2

    play(scene)


def test_a_stream_ends_with_its_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            stream: Any = host.stream(sh("echo one; sleep 1000"))
            assert await stream.__anext__() == b"one\n"
            server.clients[0].abort()
            with pytest.raises(HostUnreachableError, match="the connection broke"):
                await stream.__anext__()

    play(scene)


def test_a_peer_that_falls_silent_is_noticed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            Way(server.port).listening() as way,
            host_on(server, at(server.address, port=way.port), keepalive=0.1, keepalives=2) as host,
        ):
            running = asyncio.ensure_future(host.run(sh("sleep 1000")))
            await become(lambda: len(server.processes) == 1, "the command runs")
            way.freeze()
            with pytest.raises(HostUnreachableError, match="no answer since"):
                await asyncio.wait_for(running, 20)

    play(scene)


def test_who_falls_silent_is_known_before_the_connection_breaks_and_who_resumes_too(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            Way(server.port).listening() as way,
            host_on(server, at(server.address, port=way.port), keepalive=0.1, keepalives=1000) as host,
        ):
            # Given a command that prints nothing, on a connection that answers
            running = asyncio.ensure_future(host.run(sh("sleep 1000")))
            await become(lambda: len(server.processes) == 1, "the command runs")
            assert not host.silent

            # When nothing passes any more
            way.freeze()
            frozen = steady()

            # Then it is silent since the moment of its last answer
            await become(lambda: host.silent, "it is silent")
            assert host.answered is not None
            assert frozen - 5 < host.answered < frozen + 1
            assert not running.done()

            # And after it resumes, it is not
            way.thaw()
            await become(lambda: not host.silent, "it is heard again")
            assert host.answered > frozen
            running.cancel()

    play(scene)


def test_when_it_answered_last_is_known_after_the_connection_has_gone(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            assert host.answered is None
            await host.run(sh("true"))
            answered = host.answered

            server.clients[0].abort()
            await become(lambda: server.clients[0].is_closed(), "the connection is gone")

            assert answered is not None
            assert host.answered is not None
            assert host.answered >= answered
            assert not host.silent

    play(scene)


def test_a_slow_connection_that_carries_something_is_not_broken(tmp_path: Path) -> None:
    """On a slow link, the answer to a keepalive may come after many other bytes."""

    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server, keepalive=0.5, keepalives=3) as host:
            # Given a peer that never answers a keepalive, and says something less often than it is asked
            running = asyncio.ensure_future(host.run(sh("for i in 1 2 3 4 5 6 7; do echo $i; sleep 0.7; done")))
            await become(lambda: len(server.processes) == 1, "the command runs")
            there: Any = server.connected[0]
            there._process_keepalive_at_openssh_dot_com_global_request = lambda packet: None

            # Then what it says counts as an answer
            assert (await running).stdout.split()[-1] == b"7"

    play(scene)


def test_a_port_that_answers_with_silence_takes_no_longer_than_the_timeout(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, Way(server.port).listening() as way:
            way.freeze()
            async with host_on(server, at(server.address, port=way.port), timeout=0.3) as host:
                with pytest.raises(HostUnreachableError, match="can't be reached"):
                    await asyncio.wait_for(host.run(sh("true")), 20)

    play(scene)


def test_a_port_where_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = Address(host="127.0.0.1", port=taken.getsockname()[1], user="me")

        async def scene() -> None:
            host = SshHost(address, Server(tmp_path).host_key)
            with pytest.raises(HostUnreachableError, match="can't be reached: Connection refused") as caught:
                await host.run(sh("true"))
            assert caught.value.hint == f"ssh -p {address.port} me@127.0.0.1"
            await host.close()

        play(scene)


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    async def scene() -> None:
        host = SshHost(Address(host="no-such-host.invalid"), Server(tmp_path).host_key)
        with pytest.raises(HostUnreachableError, match=r"no-such-host\.invalid can't be reached"):
            await host.run(sh("true"))
        await host.close()

    play(scene)


def test_connections_that_are_reset_at_once_are_tried_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            Way(server.port, drops=3).listening() as way,
            host_on(server, at(server.address, port=way.port)) as host,
        ):
            assert await host.run(sh("echo hello")) == HELLO
            assert way.accepted == 4

    play(scene)


def test_pauses_between_tries_grow_and_are_not_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)  # of 0.5 to 1.5: those that retry together part

    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            Way(server.port, drops=3).listening() as way,
            host_on(server, at(server.address, port=way.port)) as host,
        ):
            assert await host.run(sh("echo hello")) == HELLO
            pauses = [after - before for before, after in pairwise(way.times)]
            assert all(pause >= least for pause, least in zip(pauses, (0.15, 0.3, 0.6), strict=True))

    play(scene)


def test_no_more_handshakes_are_under_way_than_an_sshd_takes(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, Way(server.port).listening() as way:
            dialer = Dialer(starts=8)
            address = at(server.address, port=way.port)
            hosts = [SshHost(address, server.host_key, dialer=dialer) for _ in range(20)]
            way.freeze()
            runs = [asyncio.ensure_future(host.run(sh("echo hello"))) for host in hosts]
            await become(lambda: way.accepted == 8, "eight handshakes have begun")
            await asyncio.sleep(0.2)
            assert way.accepted == 8
            way.thaw()
            assert await asyncio.gather(*runs) == [HELLO] * 20
            for host in hosts:
                await host.close()
            await dialer.close()

    play(scene)


def test_connections_that_are_always_reset_are_given_up(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            Way(server.port, drops=1000).listening() as way,
            host_on(server, at(server.address, port=way.port)) as host,
        ):
            with pytest.raises(HostUnreachableError):
                await host.run(sh("true"))
            assert 1 < way.accepted < 20

    play(scene)


def test_closing_ends_an_attempt_that_is_under_way(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, Way(server.port).listening() as way:
            way.freeze()
            async with host_on(server, at(server.address, port=way.port)) as host:
                running = asyncio.ensure_future(host.run(sh("true")))
                await become(lambda: way.accepted == 1, "the attempt has begun")
                await host.close()
                with pytest.raises(HostUnreachableError, match="dstack closed the connection"):
                    await running
                with pytest.raises(HostUnreachableError, match="dstack closed the connection"):
                    await host.run(sh("true"))

    play(scene)


# --- sessions


def test_an_end_without_status_is_a_condition_and_no_result(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            server.ending = "silence"
            with pytest.raises(HostUnreachableError, match="the connection broke"):
                await host.run(sh("echo hello"))

    play(scene)


def test_an_end_by_signal(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            server.ending = "TERM"
            assert (await host.run(sh("true"))).exit_status == 143
            server.ending = "NEVERHEARD"
            assert (await host.run(sh("true"))).exit_status == 255

    play(scene)


def test_no_more_than_eight_sessions_are_on_a_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server, patience=60) as host:
            server.sessions = 8
            answers = await asyncio.gather(*(host.run(sh("sleep 0.05; echo hello")) for _ in range(40)))
            assert answers == [HELLO] * 40
            assert server.asked == 40
            assert len(server.clients) == 1

    play(scene)


def test_streams_leave_room_for_runs_and_get_a_further_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server, patience=60) as host:
            streams: list[Any] = []
            for number in range(7):
                streams.append(host.stream(sh("echo begun; cat")))
                assert await streams[-1].__anext__() == b"begun\n"
                assert len(server.connected) == (1 if number < 6 else 2)
            assert await asyncio.gather(*(host.run(sh("echo hello")) for _ in range(4))) == [HELLO] * 4

            for stream in streams:
                await stream.aclose()
            await become(lambda: len(server.connected) == 1, "the further connection is closed when nobody needs it")
            assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def test_a_run_that_waits_long_for_a_session_gets_a_further_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server, patience=0.05) as host:
            long = [asyncio.ensure_future(host.run(sh("cat; sleep 1000"))) for _ in range(8)]
            await become(lambda: len(server.processes) == 8, "eight commands run")
            assert await host.run(sh("echo hello")) == HELLO
            assert len(server.clients) == 2
            for run in long:
                run.cancel()
            await asyncio.wait(long)

    play(scene)


@pytest.mark.parametrize("sessions", [1, 3])
def test_a_host_that_takes_fewer_sessions_is_asked_for_no_more(tmp_path: Path, sessions: int) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server, patience=60) as host:
            server.sessions = sessions
            answers = await asyncio.gather(*(host.run(sh("sleep 0.02; echo hello")) for _ in range(20)))
            assert answers == [HELLO] * 20
            assert len(server.clients) == 1

    play(scene)


def test_a_host_that_opens_no_session_at_all(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            server.sessions = 0
            with pytest.raises(HostUnreachableError, match="open failed"):
                await host.run(sh("true"))
            server.sessions = 8
            assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def test_giving_up_while_a_session_is_being_opened_leaves_none_behind(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            assert await host.run(sh("echo hello")) == HELLO
            server.opening = asyncio.Event()
            runs = [asyncio.ensure_future(host.run(sh("echo never"))) for _ in range(8)]
            await become(lambda: server.asked == 9, "eight sessions are being opened")
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)
            server.opening.set()
            await become(lambda: server.open == 0, "no session is open")
            assert await host.run(sh("echo hello")) == HELLO
            assert len(server.clients) == 1

    play(scene)


def test_a_timeout_holds_while_a_session_is_being_opened(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server) as host:
            server.opening = asyncio.Event()
            with pytest.raises(HostUnreachableError, match=r"did not answer in 0\.2 seconds"):
                await host.run(sh("true"), timeout=0.2)
            server.opening.set()
            assert await host.run(sh("echo hello")) == HELLO

    play(scene)


# --- host keys


def test_a_changed_host_key_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def scene() -> None:
        old = Server(tmp_path)
        async with Server(tmp_path).listening() as server:
            host = SshHost(server.address, old.host_key, name="box")
            with pytest.raises(HostKeyError) as caught:
                await host.run(sh("true"))
            await host.close()
            assert fingerprint(old.host_key) in caught.value.message
            assert fingerprint(server.host_key) in caught.value.message
            assert "dstack runners remove --force box" in str(caught.value.hint)
            assert server.logins == []
            assert server.commands == []

    play(scene)


def test_a_host_key_of_another_type_is_told_too(tmp_path: Path) -> None:
    async def scene() -> None:
        old = Server(tmp_path)
        async with Server(tmp_path, kind="ecdsa-sha2-nistp256").listening() as server:
            host = SshHost(server.address, old.host_key, name="box")
            with pytest.raises(HostKeyError) as caught:
                await host.run(sh("true"))
            await host.close()
            assert fingerprint(server.host_key) in caught.value.message
            assert server.logins == []

    play(scene)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-rsa"])
def test_a_pinned_key_of_any_type_is_found_among_others(tmp_path: Path, kind: str) -> None:
    async def scene() -> None:
        server = Server(tmp_path, kind=kind)
        server.more_keys = [
            asyncssh.generate_private_key(other)
            for other in ("ssh-ed25519", "ecdsa-sha2-nistp384", "ssh-rsa")
            if other != kind
        ]
        async with server.listening(), host_on(server) as host:
            assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def test_a_pinned_key_that_is_none(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            host = SshHost(server.address, "ssh-ed25519 nonsense")
            with pytest.raises(HostError, match="SSH can't be set up"):
                await host.run(sh("true"))
            await host.close()
            assert server.clients == []

    play(scene)


# --- users, keys, configuration


def test_a_refused_user_is_told_who_and_which_keys(tmp_path: Path) -> None:
    async def scene() -> None:
        other = Server(tmp_path, identity="other")
        async with Server(tmp_path).listening() as server:
            address = at(server.address, identity=str(other.identity))
            async with host_on(server, address) as host:
                with pytest.raises(HostAuthError, match="refused the login of someone") as caught:
                    await host.run(sh("true"))
            assert str(other.identity) in caught.value.message
            assert caught.value.hint == f"ssh -p {server.port} -i {other.identity} someone@127.0.0.1"
            assert server.commands == []

    play(scene)


def test_without_any_key_the_error_says_so(tmp_path: Path, home: Path) -> None:
    assert not (home / ".ssh").exists()

    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            host_on(server, at(server.address, identity=None)) as host,
        ):
            with pytest.raises(HostAuthError, match="keys tried: none found"):
                await host.run(sh("true"))

    play(scene)


def test_an_identity_that_is_missing_or_no_key(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a key\n")

    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            for name, says in (("gone", "can't be read: No such file"), ("text", "is not a usable key")):
                async with host_on(server, at(server.address, identity=str(tmp_path / name))) as host:
                    with pytest.raises(HostAuthError, match=f"{name}.*{says}|{says}"):
                        await host.run(sh("true"))
            assert server.clients == []

    play(scene)


def test_a_key_with_a_passphrase_and_no_agent(tmp_path: Path, home: Path) -> None:
    (home / ".ssh").mkdir()

    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            for path, address in (
                (tmp_path / "locked", at(server.address, identity=str(tmp_path / "locked"))),
                (home / ".ssh" / "id_ed25519", at(server.address, identity=None)),
            ):
                lock(server.identity, path)
                async with host_on(server, address) as host:
                    with pytest.raises(HostAuthError, match=f"{path} has a passphrase and no agent holds it") as caught:
                        await host.run(sh("true"))
                assert str(caught.value.hint).startswith(f"ssh-add {path}, then ssh ")

    play(scene)


def lock(identity: Path, copy: Path) -> None:
    shutil.copy(identity, copy)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", copy], check=True, capture_output=True)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Any:
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    variables = dict(part.split("=", 1) for part in started.replace("\n", "").split(";") if "=" in part)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def hold(key: Path, socket: str = variables["SSH_AUTH_SOCK"]) -> None:
        subprocess.run(["ssh-add", "-q", key], check=True, env={**os.environ, "SSH_AUTH_SOCK": socket})

    yield hold
    subprocess.run(["ssh-agent", "-k"], capture_output=True, check=True)


def test_a_key_with_a_passphrase_is_taken_from_the_agent(tmp_path: Path, agent: Any) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            for number in range(8):  # more than an sshd lets one try
                decoy = Server(tmp_path, identity=f"decoy{number}")
                agent(decoy.identity)
            agent(server.identity)
            lock(server.identity, tmp_path / "locked")
            async with host_on(server, at(server.address, identity=str(tmp_path / "locked"))) as host:
                assert await host.run(sh("echo hello")) == HELLO
            server.identity.unlink()
            async with host_on(server, at(server.address, identity=f"{server.identity}.pub")) as host:
                assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def test_the_agents_keys_are_tried_without_an_identity(tmp_path: Path, agent: Any) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            agent(server.identity)
            async with host_on(server, at(server.address, identity=None)) as host:
                assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def test_an_agent_that_is_gone_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone.sock"))

    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            config(tmp_path / "home", f"Host *\n  IdentityFile {server.identity}\n")
            async with host_on(server, at(server.address, identity=None)) as host:
                assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def config(home: Path, text: str) -> None:
    (home / ".ssh").mkdir(exist_ok=True)
    (home / ".ssh" / "config").write_text(text)


def test_an_alias_of_the_configuration(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            config(
                home,
                f"Host lab\n  HostName 127.0.0.1\n  Port {server.port}\n  User me\n  IdentityFile {server.identity}\n"
                "  IdentityFile ~/.ssh/not-there\n  RequestTTY force\n  RemoteCommand false\n  SendEnv *\n",
            )
            async with host_on(server, Address(host="lab")) as host:
                assert await host.run(sh("echo hello")) == HELLO
            assert server.logins == ["me"]

    play(scene)


def test_what_is_included_and_what_matches(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            config(home, "Include conf.d/*\nHost lab\n  HostName 127.0.0.1\n")
            (home / ".ssh" / "conf.d").mkdir()
            (home / ".ssh" / "conf.d" / "lab").write_text(f"Host lab\n  Port {server.port}\n  User included\n")
            (home / ".ssh" / "conf.d" / "match").write_text(
                f'Match host lab exec "test -d {tmp_path}"\n  IdentityFile {server.identity}\n'
                "Match host other\n  User wrong\n"
            )
            async with host_on(server, Address(host="lab")) as host:
                assert await host.run(sh("echo hello")) == HELLO
            assert server.logins == ["included"]

    play(scene)


@pytest.mark.parametrize("word", ["", "$MY_AGENT", "${MY_AGENT}"])
def test_the_configuration_names_the_agent(tmp_path: Path, home: Path, agent: Any, monkeypatch: Any, word: str) -> None:
    named = os.environ["SSH_AUTH_SOCK"]
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "another"))
    monkeypatch.setenv("MY_AGENT", named)

    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            agent(server.identity, named)
            config(home, f"Host *\n  IdentityAgent {word or named}\n")
            async with host_on(server, at(server.address, identity=None)) as host:
                assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def test_the_configuration_says_when_a_silent_peer_is_given_up(tmp_path: Path, home: Path) -> None:
    config(home, "Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 1\n")

    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            Way(server.port).listening() as way,
            host_on(server, at(server.address, port=way.port), keepalive=1000) as host,
        ):
            running = asyncio.ensure_future(host.run(sh("sleep 1000")))
            await become(lambda: len(server.processes) == 1, "the command runs")
            way.freeze()
            with pytest.raises(HostUnreachableError, match="no answer since"):
                await asyncio.wait_for(running, 30)

    play(scene)


def test_a_broken_configuration_is_told_with_its_line(tmp_path: Path, home: Path) -> None:
    config(home, "Host *\n  Port many\n")

    async def scene() -> None:
        async with Server(tmp_path).listening() as server, host_on(server, at(server.address, port=None)) as host:
            with pytest.raises(HostError, match=r"SSH can't be set up: .*/\.ssh/config line 2: .*many") as caught:
                await host.run(sh("true"))
            assert caught.value.hint == f"ssh -i {server.identity} someone@127.0.0.1"
            assert caught.value.sent is False

    play(scene)


@pytest.mark.parametrize(
    "text",
    [
        "Host lab\n  HostName 127.0.0.1 # by the window\n  Port {port}\n  User me\n  IdentityFile {key}\n",
        'Match host lab exec "[ a = a ]"\n  Port {port}\n  User me\n  IdentityFile {key}\n'
        "Host lab\n  HostName 127.0.0.1\n",
        'Match exec "[ %n = lab ]"\n  HostName=127.0.0.1\n  Port={port}\n  User = me\n  IdentityFile={key}\n'
        'Match exec "[ %n != lab ]"\n  User wrong\n',
        "Host lab\n  ProxyCommand=python3 {relay} %h {port}\n  HostName 127.0.0.1\n  User me\n  IdentityFile {key}\n",
    ],
    ids=["comment", "exec with =", "exec with %", "ProxyCommand="],
)
def test_a_configuration_means_what_it_means_to_ssh(tmp_path: Path, home: Path, text: str) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            relay = tmp_path / "relay.py"
            relay.write_text(RELAY)
            config(home, text.format(port=server.port, key=server.identity, relay=relay))
            async with host_on(server, Address(host="lab")) as host:
                assert await host.run(sh("echo hello")) == HELLO
            assert server.logins == ["me"]

    play(scene)


def test_a_proxy_command_is_used_and_ended(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            relay = tmp_path / "relay.py"
            relay.write_text(RELAY)
            config(home, f"Host *\n  ProxyCommand python3 {relay} %h {server.port}\n  IdentityFile {server.identity}\n")
            async with host_on(server, Address(host="127.0.0.1", user="me")) as host:
                assert await host.run(sh("echo hello")) == HELLO

    play(scene)


RELAY = """
import os, socket, sys, threading
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        s.sendall(data)
    os._exit(0)
threading.Thread(target=up, daemon=True).start()
while data := s.recv(65536):
    os.write(1, data)
"""


# --- bastions


@asynccontextmanager
async def bastion_and(tmp_path: Path, home: Path, targets: int) -> AsyncIterator[tuple[Server, list[Server]]]:
    async with AsyncExitStack() as stack:
        bastion = await stack.enter_async_context(Server(tmp_path).listening())
        bastion.forwards = True
        (home / ".ssh").mkdir()
        (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{bastion.port} {bastion.host_key}\n")
        yield bastion, [await stack.enter_async_context(Server(tmp_path).listening()) for _ in range(targets)]


def test_a_bastion_with_a_key_of_its_own(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with bastion_and(tmp_path, home, 0) as (bastion, _), Server(tmp_path, identity="box").listening() as box:
            jump = f"gate@127.0.0.1:{bastion.port}"
            for identity, why in ((None, "gate@127.0.0.1.* refused the login"), (str(bastion.identity), None)):
                async with host_on(box, at(box.address, jump=jump, jump_identity=identity)) as host:
                    if why is None:
                        assert await host.run(sh("echo hello")) == HELLO
                        continue
                    with pytest.raises(HostAuthError, match=why):
                        await host.run(sh("echo hello"))

    play(scene)


def test_hosts_behind_a_bastion_share_its_connection(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with bastion_and(tmp_path, home, 3) as (bastion, targets):
            dialer = Dialer()
            jump = f"gate@127.0.0.1:{bastion.port}"
            hosts = [SshHost(at(server.address, jump=jump), server.host_key, dialer=dialer) for server in targets]
            assert await asyncio.gather(*(host.run(sh("echo hello")) for host in hosts)) == [HELLO] * 3
            assert len(bastion.clients) == 1
            assert bastion.logins == ["gate"]
            assert sorted(bastion.forwarded) == sorted(("127.0.0.1", server.port) for server in targets)
            await hosts[0].close()
            assert await hosts[1].run(sh("echo hello")) == HELLO

            bastion.clients[0].abort()
            await become(lambda: targets[1].connected == [], "the break of the bastion is seen")
            assert await asyncio.gather(*(host.run(sh("echo hello")) for host in hosts[1:])) == [HELLO] * 2
            assert len(bastion.clients) == 2
            for host in hosts:
                await host.close()
            await dialer.close()

    play(scene)


def test_a_proxy_jump_of_the_configuration_is_shared_too(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with bastion_and(tmp_path, home, 2) as (bastion, targets):
            config(
                home,
                f"Host *\n  IdentityFile {bastion.identity}\nHost gate\n  HostName 127.0.0.1\n  Port {bastion.port}\n"
                "Host 127.0.0.1 gate\n  ProxyJump gate\n",
            )
            dialer = Dialer()
            hosts = [SshHost(at(t.address, identity=None), t.host_key, dialer=dialer) for t in targets]
            assert await asyncio.gather(*(host.run(sh("echo hello")) for host in hosts)) == [HELLO] * 2
            assert len(bastion.clients) == 1
            for host in hosts:
                await host.close()
            await dialer.close()

    play(scene)


def test_a_bastion_that_is_not_known_is_not_trusted(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with bastion_and(tmp_path, home, 1) as (bastion, (target,)):
            (home / ".ssh" / "known_hosts").unlink()
            async with host_on(target, at(target.address, jump=f"127.0.0.1:{bastion.port}")) as host:
                with pytest.raises(HostKeyError, match="is not in your known_hosts") as caught:
                    await host.run(sh("true"))
            assert fingerprint(bastion.host_key) in caught.value.message
            assert caught.value.hint == f"ssh -p {bastion.port} 127.0.0.1"
            assert bastion.logins == []

    play(scene)


def test_a_bastion_whose_key_the_configuration_does_not_check(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with bastion_and(tmp_path, home, 1) as (bastion, (target,)):
            (home / ".ssh" / "known_hosts").unlink()
            config(home, "Host 127.0.0.1\n  StrictHostKeyChecking no\n")
            async with host_on(target, at(target.address, jump=f"127.0.0.1:{bastion.port}")) as host:
                assert await host.run(sh("echo hello")) == HELLO

    play(scene)


def test_a_bastion_that_forwards_nothing(tmp_path: Path, home: Path) -> None:
    async def scene() -> None:
        async with bastion_and(tmp_path, home, 1) as (bastion, (target,)):
            bastion.forwards = False
            async with host_on(target, at(target.address, jump=f"127.0.0.1:{bastion.port}")) as host:
                with pytest.raises(HostUnreachableError, match="can't be reached"):
                    await host.run(sh("true"))

    play(scene)


def test_a_jump_that_is_no_address(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            host_on(server, at(server.address, jump="gate:many")) as host,
        ):
            with pytest.raises(HostError, match='Invalid ProxyJump "gate:many"'):
                await host.run(sh("true"))

    play(scene)
