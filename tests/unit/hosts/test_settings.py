"""What dstack reads from ssh's configuration."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from asyncssh.sk_eddsa import _SKEd25519Key

from dstack.errors import HostError
from dstack.hosts.ssh import openssh
from dstack.hosts.ssh.settings import SshSettings, read_settings
from dstack.model.runner.runner import Address

LAB = Address(host="lab")


@pytest.fixture
def ssh(home: Path) -> Path:
    folder = home / ".ssh"
    folder.mkdir()
    return folder


def settings(ssh: Path, text: str, address: Address = LAB) -> SshSettings:
    (ssh / "config").write_text(text)
    return read_settings(address)


def test_every_option_arrives(ssh: Path) -> None:
    found = settings(
        ssh,
        "Host lab\n  HostName 10.0.0.9\n  Port 2201\n  User me\n  HostKeyAlias nickname\n  ConnectTimeout 7\n"
        "  AddressFamily inet6\n  BindAddress ::1\n  ServerAliveInterval 9\n  ServerAliveCountMax 4\n"
        "  ProxyJump ann@gate:2222,10.0.0.1\n  IdentityAgent ~/agent\n  StrictHostKeyChecking no\n",
    )

    assert (found.host, found.port, found.user, found.alias) == ("10.0.0.9", 2201, "me", "nickname")
    assert (found.timeout, found.keepalive, found.keepalives) == (7, 9, 4)
    assert (found.family, found.local) == (socket.AF_INET6, ("::1", 0))
    assert found.jump == "ann@gate:2222,[10.0.0.1]"
    assert found.proxy is None
    assert found.agent is not None
    assert found.agent.endswith("/agent")
    assert found.strict is False


def test_what_the_address_says_counts_first(ssh: Path) -> None:
    address = Address(host="lab", user="ann", port=22, jump="other", identity="/tmp/none")
    text = "Host lab\n  User me\n  Port 2201\n  ProxyJump gate\nMatch user ann\n  HostName 10.0.0.9\n"

    with pytest.raises(HostError, match="/tmp/none"):
        settings(ssh, text, address)
    found = settings(ssh, text, Address(host="lab", user="ann", port=22, jump="other"))

    assert (found.host, found.port, found.user, found.jump) == ("10.0.0.9", 22, "ann", "other")


def test_tokens_are_expanded(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "blue")
    found = settings(
        ssh,
        "Host lab\n  HostName %h.example\n  User me\n  IdentityFile ~/${TEAM}_%n_%h_%r_%p%%\n"
        '  ProxyCommand=nc "a b" %n %h %p %r 100%%\n  UserKnownHostsFile ~/known_%h "/tmp/with space/known"\n',
    )

    assert found.proxy == ["sh", "-c", 'exec nc "a b" lab lab.example 22 me 100%']
    assert found.keys.unusable == [
        f"the key {ssh.parent}/blue_lab_lab.example_me_22% can't be read: No such file or directory"
    ]
    assert found.known_hosts[0].name == "known_lab.example"
    assert found.known_hosts[1] == Path("/tmp/with space/known")


def test_a_security_key_is_left_to_the_agent(ssh: Path) -> None:
    key: Any = _SKEd25519Key(bytes(32), "ssh:", 1, b"handle", b"")
    key.write_private_key(str(ssh / "id_ed25519_sk"))
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(ssh / "id_ed25519"))
    keys = settings(ssh, "").keys

    assert [pair.get_algorithm() for pair in keys.pairs] == ["ssh-ed25519"]
    assert key.public_data in keys.public


def test_a_host_may_be_called_none(ssh: Path) -> None:
    assert read_settings(Address(host="none")).host == "none"


def test_none_means_none(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    plain = settings(ssh, "")
    found = settings(
        ssh,
        "Host *\n  IdentityAgent none\n  IdentityFile none\n  ProxyCommand none\n  UserKnownHostsFile none\n"
        "  GlobalKnownHostsFile none\n",
    )

    assert (plain.agent, plain.proxy, plain.timeout, plain.keepalive, plain.strict) == (
        "/tmp/agent",
        None,
        None,
        None,
        True,
    )
    assert plain.known_hosts[:2] == (ssh / "known_hosts", ssh / "known_hosts2")
    assert plain.keys.unusable == []
    assert (found.agent, found.proxy, found.known_hosts) == (None, None, ())


@pytest.mark.parametrize("missing", ["ssh", "account"])
def test_without_ssh_there_must_be_nothing_to_read(ssh: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(f"uid not found: {uid}")

    if missing == "ssh":
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("USER", "me")
    monkeypatch.delenv("LOGNAME", raising=False)
    found = read_settings(Address(host="lab", port=2201))

    assert (found.host, found.port, found.user) == ("lab", 2201, "me")
    assert found.known_hosts[:2] == (ssh / "known_hosts", ssh / "known_hosts2")
    monkeypatch.setattr(openssh, "SYSTEM", ssh / "ssh_config")
    openssh.SYSTEM.write_text("# stock\n\nInclude /etc/ssh/ssh_config.d/*.conf\nHost *\n    SendEnv LANG LC_*\n")
    assert read_settings(LAB).host == "lab"
    openssh.SYSTEM.write_text("Host *\n    ProxyJump gate\n")
    with pytest.raises(HostError) as machine:
        read_settings(LAB)
    with pytest.raises(HostError) as both:
        settings(ssh, "Host lab\n")
    nobody_there = f"ssh refuses to run for uid {os.getuid()}, which has no account"
    whose = "ssh is not installed" if missing == "ssh" else nobody_there
    assert machine.value.message == f"lab: {whose}, and only ssh can read {ssh}/ssh_config"
    assert both.value.message == f"lab: {whose}, and only ssh can read {ssh}/config and {ssh}/ssh_config"
    assert "sudo " in (machine.value.hint or "")


def test_with_another_home_ssh_reads_its_files_and_then_the_machines(
    home: Path, ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh, "SYSTEM", home / "a [b]*" / "ssh_config")
    assert read_settings(LAB).user == read_settings(Address(host="other")).user
    openssh.SYSTEM.parent.mkdir()
    openssh.SYSTEM.write_text("User sys\nPort 7\n")

    found = settings(ssh, "Host lab\n  User me\nHost other\n  Port 9\n")

    assert (found.user, found.port) == ("me", 7)
    assert read_settings(Address(host="other")).user == "sys"
    with pytest.raises(HostError, match=r"lab: SSH can't be set up: .*/\.ssh/config: line 2: Bad configuration option"):
        settings(ssh, "Host lab\n  Usr me\n")


def test_in_the_accounts_own_home_ssh_finds_its_files(
    ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "ssh"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nprintf 'hostname h\\nport 1\\nuser u\\nhostkeyalias %s\\n' \"$*\"\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    account: Any = SimpleNamespace(pw_dir=str(ssh.parent), pw_name="me")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: account)

    assert read_settings(LAB).alias == "-G -T -- lab"
    jumping = Address(host="lab", user="ann", port=7, jump="a, b:2")
    assert read_settings(jumping).alias == "-G -T -p 7 -l ann -o ProxyJump=a,b:2 -- lab"


def test_a_library_of_keys_is_named_when_the_login_is_refused(ssh: Path) -> None:
    assert settings(ssh, "PKCS11Provider /usr/lib/opensc.so\n").provider == "/usr/lib/opensc.so"
    assert settings(ssh, "PKCS11Provider none\n").provider is None


def test_a_proxy_that_passes_a_descriptor_is_refused(ssh: Path) -> None:
    with pytest.raises(HostError, match="lab: ProxyUseFdpass is not supported; set it to no"):
        settings(ssh, "ProxyCommand fdpass %h\nProxyUseFdpass yes\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("IdentityFile ~/${NOT_SET}/x", "has the variable NOT_SET, which is not set in dstack's environment"),
        ("IdentityFile ~/%z", "~/%z has %z, a token that ssh does not know; write %% for a percent sign"),
        ("CertificateFile ~/x%", "~/x% has %, a token that ssh does not know"),
        ("IdentityFile ~/%f", "has %f, a token that ssh does not know"),
        ("ProxyCommand nc %d 22", "nc %d 22 has %d, a token that ssh does not know"),
    ],
)
def test_what_ssh_can_not_expand_is_refused(ssh: Path, text: str, said: str) -> None:
    with pytest.raises(HostError) as caught:
        settings(ssh, text + "\n")
    assert said in caught.value.message


@pytest.mark.parametrize("printed", ["", "hostname lab\n", "hostname lab\nport x\n", "port 22\n", "\0"])
def test_an_ssh_that_prints_no_host_and_port(ssh: Path, monkeypatch: pytest.MonkeyPatch, printed: str) -> None:
    monkeypatch.setattr(openssh, "_printed", lambda address: printed)

    with pytest.raises(HostError, match="lab: SSH can't be set up: `ssh -G lab` did not print a host name and a port"):
        read_settings(LAB)


@pytest.mark.parametrize("value", ["", "-1", "1e999", "9" * 5000])
def test_numbers_that_ssh_does_not_print(ssh: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    lines = (f"{name} {value}\n" for name in ("connecttimeout", "serveraliveinterval", "serveralivecountmax"))
    monkeypatch.setattr(openssh, "_printed", lambda address: "hostname lab\nport 22\nuser me\n" + "".join(lines))

    found = read_settings(LAB)

    assert (found.timeout, found.keepalive, found.keepalives) == (None, None, 3)


def test_a_configuration_that_takes_forever(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "TIMEOUT", 0.2)

    with pytest.raises(HostError, match=r"`ssh -G lab` took longer than 0\.2 seconds"):
        settings(ssh, 'Match exec "sleep 5"\n  User me\n')
