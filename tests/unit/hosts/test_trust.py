from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from dstack.errors import HostKeyError, HostUnreachableError
from dstack.hosts.ssh.dial import Dialer
from dstack.hosts.trust import known_keys
from dstack.model.runner.runner import Address, fingerprint
from tests.unit.hosts.conftest import play
from tests.unit.hosts.servers import Server, Way


def new_key(kind: str = "ssh-ed25519") -> str:
    return " ".join(asyncssh.generate_private_key(kind).export_public_key().decode().split()[:2])


@pytest.fixture
def ssh(home: Path) -> Path:
    folder = home / ".ssh"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_the_fingerprint_is_that_of_ssh_keygen(tmp_path: Path, kind: str) -> None:
    key = new_key(kind)
    (tmp_path / "key.pub").write_text(f"{key} someone@somewhere\n")

    shown = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True)

    assert fingerprint(key) == fingerprint(f"{key} a comment") == shown.stdout.split()[1]


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 ###"])
def test_what_is_no_key_has_no_fingerprint(text: str) -> None:
    with pytest.raises(HostKeyError, match="not a public key"):
        fingerprint(text)


async def offered_key(address: Address) -> str:
    async with Dialer() as dialer:
        return await dialer.offered_key(address)


async def certified_key(address: Address) -> str | None:
    async with Dialer() as dialer:
        return await dialer.certified_key(address)


def test_known_keys_without_any_file(home: Path) -> None:
    assert not (home / ".ssh").exists()
    assert known_keys(Address(host="box")) == []


def test_known_keys_are_found_by_name_and_port(ssh: Path) -> None:
    plain, ported, other = new_key(), new_key("ecdsa-sha2-nistp256"), new_key()
    (ssh / "known_hosts").write_text(
        f"# a comment\nbox,10.0.0.1 {plain} comment\n[box]:2222 {ported}\nnot an entry\n\n"
        f"else {other}\n@odd box {other}\n"
    )

    assert known_keys(Address(host="box")) == [plain]
    assert known_keys(Address(host="10.0.0.1")) == [plain]
    assert known_keys(Address(host="box", port=2222)) == [ported]
    assert known_keys(Address(host="nobody")) == []


def test_hashed_names_are_known(ssh: Path) -> None:
    key, ported = new_key(), new_key()
    (ssh / "known_hosts").write_text(f"box {key}\n[box]:2222 {ported}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", ssh / "known_hosts"], check=True, capture_output=True)
    assert "box" not in (ssh / "known_hosts").read_text()

    assert known_keys(Address(host="box")) == [key]
    assert known_keys(Address(host="box", port=2222)) == [ported]


def test_a_revoked_key_is_not_known(ssh: Path) -> None:
    good, bad = new_key(), new_key()
    (ssh / "known_hosts").write_text(f"box {good}\nbox {bad}\n@revoked box {bad}\n")

    assert known_keys(Address(host="box")) == [good]


def test_the_configuration_says_where_and_under_which_name(ssh: Path, tmp_path: Path) -> None:
    key, real, aliased = new_key(), new_key(), new_key()
    (ssh / "known_hosts").write_text(f"box {key}\n")
    (tmp_path / "known").write_text(f"10.0.0.9 {real}\nnickname {aliased}\n")
    (ssh / "config").write_text(
        f"Host box\n  HostName 10.0.0.9\nHost nick\n  HostKeyAlias nickname\nHost *\n"
        f"  UserKnownHostsFile {tmp_path}/known {tmp_path}/gone\n"
    )

    assert known_keys(Address(host="box")) == [real]
    assert known_keys(Address(host="nick")) == [aliased]


def test_the_offered_key_is_seen_without_a_login(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            assert await offered_key(server.address) == server.host_key
            assert server.logins == []

    play(scene)


def test_of_several_keys_the_known_type_is_asked_for(tmp_path: Path, ssh: Path) -> None:
    async def scene() -> None:
        server = Server(tmp_path)
        server.more_keys = [asyncssh.generate_private_key("ecdsa-sha2-nistp256")]
        second = " ".join(server.more_keys[0].export_public_key().decode().split()[:2])
        async with server.listening():
            assert await offered_key(server.address) == server.host_key
            (ssh / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {second}\n")
            assert await offered_key(server.address) == second
            assert known_keys(server.address) == [second]

    play(scene)


def test_the_key_of_a_host_behind_a_bastion(tmp_path: Path, ssh: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as bastion, Server(tmp_path).listening() as server:
            bastion.forwards = True
            (ssh / "known_hosts").write_text(f"[127.0.0.1]:{bastion.port} {bastion.host_key}\n")
            address = Address(
                host="127.0.0.1",
                port=server.port,
                identity=str(server.identity),
                jump=f"127.0.0.1:{bastion.port}",
            )
            assert await offered_key(address) == server.host_key
            assert bastion.forwarded == [("127.0.0.1", server.port)]

    play(scene)


def test_no_key_from_a_host_that_is_not_there(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, Way(server.port, drops=1000).listening() as way:
            with pytest.raises(HostUnreachableError):
                await asyncio.wait_for(offered_key(Address(host="127.0.0.1", port=way.port)), 30)

    play(scene)


def certified(server: Server, authority: asyncssh.SSHKey, **wanted: Any) -> None:
    """Make the server show a certificate for its key."""
    server.certificate = authority.generate_host_certificate(server.key.convert_to_public(), "box", **wanted)


def test_a_key_that_an_authority_certified(tmp_path: Path, ssh: Path) -> None:
    authority, other = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")

    async def scene() -> None:
        server = Server(tmp_path, kind="ecdsa-sha2-nistp256")
        certified(server, authority, principals=["127.0.0.1"])
        async with server.listening():
            assert await certified_key(server.address) is None
            for known, expected in ((other, None), (authority, server.host_key)):
                text = known.export_public_key().decode().strip()
                (ssh / "known_hosts").write_text(f"@cert-authority * {text}\n")
                assert await certified_key(server.address) == expected
            assert server.commands == []

    play(scene)


@pytest.mark.parametrize(
    "wanted", [{"principals": ["elsewhere"]}, {"valid_after": "20190101", "valid_before": "20200101"}, None]
)
def test_a_certificate_that_is_not_good(tmp_path: Path, ssh: Path, wanted: dict[str, Any] | None) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    (ssh / "known_hosts").write_text(f"@cert-authority * {authority.export_public_key().decode().strip()}\n")

    async def scene() -> None:
        server = Server(tmp_path)
        if wanted is not None:
            certified(server, authority, **wanted)
        async with server.listening():
            assert await certified_key(server.address) is None

    play(scene)
