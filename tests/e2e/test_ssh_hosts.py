"""SSH hosts with a real sshd: login shells, limits of connections and sessions, broken connections."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dstack.commands.command import Command, Result, Stdin
from dstack.errors import HostAuthError, HostError, HostKeyError, HostUnreachableError
from dstack.hosts.ssh.dial import Dialer
from dstack.hosts.ssh.host import SshHost
from dstack.hosts.trust import known_keys
from dstack.model.runner.runner import Address
from tests.environment import account, needs
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

SHELLS = ["dash", "bash", "zsh", "fish", "tcsh"]
START_FILES = {
    "bash": (".bashrc", "echo hello from bashrc; echo and this is an error >&2; sleep 0.2\n"),
    "zsh": (".zshenv", "print -n 'no newline'; sleep 0.2\n"),
    "fish": (".config/fish/config.fish", "echo hello from fish; sleep 0.2\n"),
    "tcsh": (".tcshrc", "echo hello from tcshrc; sleep 0.2; echo 'dstack-not-the-marker'\n"),
    "dash": (".profile", "echo hello from profile\n"),
}
AWKWARD = 'it\'s !x $HOME \\ `q` "d" * ? [a] {b,c} ~ # % ^ & | ; < > é'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for the client, without keys and configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dsh-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def users(folder: Path) -> Iterator[Callable[[str], account.Account]]:
    """Makes users, given the name of their login shell."""
    made: dict[str, account.Account] = {}

    def user(shell: str) -> account.Account:
        if shell not in made:
            path = shutil.which(shell) or shutil.which(shell, path="/usr/sbin:/sbin")
            if path is None:
                needs.missing(f"{shell} is not installed; install it: apt-get install {shell}")
            name = f"dstack-t-{shell[:6]}-{os.getpid()}"
            made[shell] = account.create(name, folder / shell, group=os.getgid(), shell=path)
            if shell in START_FILES:
                name, text = START_FILES[shell]
                file = made[shell].home / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        return made[shell]

    try:
        yield user
    finally:
        for person in made.values():
            until(lambda uid=person.uid: ended(uid), f"the processes of {person.name} have ended")
            account.remove(person)


def ended(uid: int) -> bool:
    """Kill a user's processes; return whether none is left."""
    pids = account.processes(uid)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not pids


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Sshd]:
    """An sshd that accepts all users of these tests, and prints a banner."""
    (folder / "banner").write_text("*** Authorized users only ***\n")
    server = Sshd(folder / "sshd", f"dstack-t-*-{os.getpid()}", [f"Banner {folder}/banner"])
    server.start()
    try:
        yield server
    finally:
        server.close()


def sh(script: str, stdin: Stdin = b"") -> Command[Result]:
    return Command("test", script, lambda result: result, stdin)


def reach(server: Sshd, user: account.Account) -> Address:
    return Address(host=server.host, port=server.port, user=user.name, identity=str(server.identity))


@asynccontextmanager
async def connected(server: Sshd, user: account.Account) -> AsyncIterator[SshHost]:
    host = SshHost(reach(server, user), server.host_key, name="box")
    try:
        yield host
    finally:
        await host.close()


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine, and check that it leaves no task behind."""

    async def scene_and_check() -> None:
        await asyncio.wait_for(scene(), 300)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene_and_check())


async def become(condition: Callable[[], bool], what: str) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within 30 s: {what}")


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell_with_any_start_file(shell: str, server: Sshd, users: Callable[[str], account.Account]) -> None:
    user = users(shell)
    payload = bytes(range(256)) * 500

    async def scene() -> None:
        async with connected(server, user) as host:
            answer = await host.run(sh(f"cat <<'END'\n{AWKWARD}\nEND\npwd; umask; echo $LC_ALL; echo bad >&2; exit 5"))
            assert answer.stdout.decode().splitlines() == [AWKWARD, str(user.home), "0077", "C"]
            assert (answer.stderr, answer.exit_status) == (b"bad\n", 5)
            assert (await host.run(sh("cat", payload))).stdout == payload
            assert (await host.run(sh("kill -9 $$"))).exit_status == 137
            stream: Any = host.stream(sh("echo first; cat", b"second"))
            got = b""
            while got != b"first\nsecond":
                got += await stream.__anext__()
            await stream.aclose()

    play(scene)


def test_an_account_without_a_shell_says_so(server: Sshd, users: Callable[[str], account.Account]) -> None:
    async def scene() -> None:
        async with connected(server, users("nologin")) as host:
            with pytest.raises(HostError, match=r"login shell did not start the command.*currently not available"):
                await host.run(sh("true"))

    play(scene)


def test_forty_runs_at_once_on_one_host(server: Sshd, users: Callable[[str], account.Account]) -> None:
    async def scene() -> None:
        async with connected(server, users("dash")) as host:
            streams: list[Any] = [host.stream(sh("echo begun; cat")) for _ in range(8)]
            for stream in streams:
                assert await stream.__anext__() == b"begun\n"
            answers = await asyncio.gather(*(host.run(sh(f"sleep 0.1; cat; echo {n}", b"x")) for n in range(40)))
            assert [answer.stdout for answer in answers] == [b"x%d\n" % n for n in range(40)]
            for stream in streams:
                await stream.aclose()

    play(scene)


def test_thirty_connections_to_one_sshd_at_once(server: Sshd, users: Callable[[str], account.Account]) -> None:
    user = users("dash")

    async def scene() -> None:
        dialer = Dialer()
        hosts = [SshHost(reach(server, user), server.host_key, dialer=dialer) for _ in range(30)]
        lonely = [SshHost(reach(server, user), server.host_key) for _ in range(15)]  # know nothing of each other
        answers = await asyncio.gather(*(host.run(sh("echo hello")) for host in hosts + lonely))
        assert answers == [Result(0, b"hello\n", b"")] * 45
        for host in hosts + lonely:
            await host.close()
        await dialer.close()

    play(scene)


def test_fifty_megabytes_in_and_out(server: Sshd, users: Callable[[str], account.Account]) -> None:
    data = os.urandom(5_000_000) * 10
    digest = hashlib.sha256(data).hexdigest()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1_000_003):
            yield data[start : start + 1_000_003]

    async def scene() -> None:
        async with connected(server, users("dash")) as host:
            for stdin in (data, pieces):
                answer = await host.run(sh("sha256sum", stdin))
                assert answer.stdout.decode().split()[0] == digest
            assert (
                hashlib.sha256((await host.run(replace(sh("cat", pieces), most=len(data)))).stdout).hexdigest()
                == digest
            )
            streamed = hashlib.sha256()
            stream: Any = host.stream(sh(f"head -c {len(data)}", pieces))
            async for piece in stream:
                streamed.update(piece)
            assert streamed.hexdigest() == digest

    play(scene)


def test_a_command_need_not_read_its_stdin(server: Sshd, users: Callable[[str], account.Account]) -> None:
    async def scene() -> None:
        async with connected(server, users("dash")) as host:
            assert await host.run(sh("echo no; exit 3", b"x" * 20_000_000)) == Result(3, b"no\n", b"")
            assert await host.run(sh("exec <&-; sleep 0.2; echo no", b"x" * 20_000_000)) == Result(0, b"no\n", b"")

    play(scene)


def test_a_cancelled_run_and_a_closed_stream_leave_nothing(
    server: Sshd, users: Callable[[str], account.Account]
) -> None:
    user = users("dash")

    def running(name: str) -> bool:
        found = subprocess.run(["pgrep", "-u", user.name, "-f", name], capture_output=True)
        return found.returncode == 0

    async def scene() -> None:
        async with connected(server, user) as host:
            runs = [asyncio.ensure_future(host.run(sh("sleep 4321; true"))) for _ in range(12)]
            await become(lambda: running("4321"), "the command runs")
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)
            stream: Any = host.stream(sh("echo begun; sleep 4322; true"))
            await stream.__anext__()
            await become(lambda: running("4322"), "the stream's command runs")
            await stream.aclose()
            await become(lambda: not running("432"), "nothing is left")
            with pytest.raises(HostUnreachableError, match=r"did not answer in 0\.3 seconds"):
                await host.run(sh("sleep 4323; true"), timeout=0.3)
            await become(lambda: not running("432"), "nothing is left")
            answers = await asyncio.gather(*(host.run(sh("echo hello")) for _ in range(8)))
            assert answers == [Result(0, b"hello\n", b"")] * 8

    play(scene)


def test_a_cut_connection_is_a_condition_and_the_next_use_connects_again(
    server: Sshd, users: Callable[[str], account.Account]
) -> None:
    user = users("dash")

    async def scene() -> None:
        async with connected(server, user) as host:
            stream: Any = host.stream(sh("echo begun; cat"))
            await stream.__anext__()
            runs = [asyncio.ensure_future(host.run(sh("touch ~/begun$$; sleep 1000"))) for _ in range(2)]
            await become(lambda: len(list(user.home.glob("begun*"))) == 2, "both commands run")
            server.cut()
            for run in runs:
                with pytest.raises(HostUnreachableError):
                    await run
            with pytest.raises(HostUnreachableError):
                await stream.__anext__()
            answers = await asyncio.gather(*(host.run(sh("echo hello")) for _ in range(5)))
            assert answers == [Result(0, b"hello\n", b"")] * 5

    play(scene)


def test_an_sshd_that_stops_and_comes_back(folder: Path, users: Callable[[str], account.Account]) -> None:
    user = users("dash")
    other = Sshd(folder / "second", user.name)
    other.start()

    async def scene() -> None:
        async with connected(other, user) as host:
            assert (await host.run(sh("echo hello"))).stdout == b"hello\n"
            other.cut()
            other.close()
            with pytest.raises(HostUnreachableError):
                await host.run(sh("true"))
            with pytest.raises(HostUnreachableError, match="Connection refused"):
                await host.run(sh("true"))
            other.start()
            assert (await host.run(sh("echo hello"))).stdout == b"hello\n"

    try:
        play(scene)
    finally:
        other.close()


def test_a_changed_host_key_gets_no_login_and_no_command(folder: Path, users: Callable[[str], account.Account]) -> None:
    user = users("dash")
    other = Sshd(folder / "third", user.name)
    other.start()
    pinned, shown = other.host_key, other.fingerprint
    other.close()
    for file in ("host_key", "host_key.pub", "id_ed25519", "id_ed25519.pub", "log"):
        (other.folder / file).unlink()
    other.start()
    before = other.log

    async def scene() -> None:
        host = SshHost(reach(other, user), pinned, name="box")
        with pytest.raises(HostKeyError, match="the host key changed") as caught:
            await host.run(sh("touch here"))
        await host.close()
        assert shown in caught.value.message
        assert other.fingerprint in caught.value.message
        assert not (user.home / "here").exists()
        assert user.name not in other.log.removeprefix(before)

    try:
        play(scene)
    finally:
        other.close()


def test_wrong_users_and_wrong_keys_are_refused(
    server: Sshd, users: Callable[[str], account.Account], tmp_path: Path
) -> None:
    other = Sshd(tmp_path / "other", "nobody")
    other._prepare()
    right = reach(server, users("dash"))

    async def scene() -> None:
        for wrong in (
            msgspec.structs.replace(right, user="root"),
            msgspec.structs.replace(right, user="no-such-user"),
            msgspec.structs.replace(right, identity=str(other.identity)),
        ):
            host = SshHost(wrong, server.host_key)
            with pytest.raises(HostAuthError, match=f"refused the login of {wrong.user}; keys tried: ") as caught:
                await host.run(sh("true"))
            await host.close()
            assert f"{wrong.user}@127.0.0.1" in str(caught.value.hint)

    play(scene)


def test_a_host_behind_a_bastion(server: Sshd, users: Callable[[str], account.Account], home: Path) -> None:
    user = users("dash")
    (home / ".ssh").mkdir()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    address = msgspec.structs.replace(
        reach(server, user), host="localhost", jump=f"{user.name}@127.0.0.1:{server.port}"
    )

    async def scene() -> None:
        dialer = Dialer()
        assert await dialer.offered_key(address) == server.host_key
        assert known_keys(reach(server, user)) == [server.host_key]
        hosts = [SshHost(address, server.host_key, dialer=dialer) for _ in range(4)]
        answers = await asyncio.gather(*(host.run(sh("echo hello")) for host in hosts))
        assert answers == [Result(0, b"hello\n", b"")] * 4
        for host in hosts:
            await host.close()
        await dialer.close()

    play(scene)
