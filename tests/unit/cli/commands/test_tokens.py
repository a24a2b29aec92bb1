"""Named tokens and roles, with the real server of a fresh home on TCP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Alone, command

Person = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def tokens(alone: Alone) -> dict[str, str]:
    """The tokens of an admin, boss, and two members, ann and bob, made before the server listens on TCP."""
    roles = {"boss": "admin", "ann": "member", "bob": "member"}
    made = {name: alone("server", "token", "create", name, "--role", role) for name, role in roles.items()}
    assert alone("server", "stop").returncode == 0
    return {name: done.stdout.decode().removesuffix("\n") for name, done in made.items()}


def started(alone: Alone, *options: str, **extra: str) -> str:
    """Start the server on TCP and return its URL."""
    done = alone("server", "start", "--port", "0", *options, **extra)
    assert done.returncode == 0, done.stderr
    return str(json.loads(alone("server", "status", "--json").stdout)["url"])


def person(alone: Alone, url: str, token: str) -> Person:
    """Run commands over TCP with this token."""
    return lambda *words: alone(*words, DSTACK_SERVER_URL=url, DSTACK_TOKEN=token)


def test_a_token_is_printed_alone_and_stored_as_a_hash(alone: Alone, tokens: dict[str, str], folder: Path) -> None:
    for token in tokens.values():
        assert len(token) == 43  # 256 bits
        assert not any(token.encode() in path.read_bytes() for path in (folder / "home").rglob("*") if path.is_file())

    again = alone("server", "token", "create", "ann")
    assert (again.returncode, again.stdout) == (2, b"")
    assert b"a token named 'ann' already exists" in again.stderr
    for name in ("shared", "server", "-x", "a b", "ä", "x" * 65, ""):
        assert alone("server", "token", "create", "--", name).returncode == 2


def test_tokens_are_listed_with_role_and_last_use(alone: Alone, tokens: dict[str, str]) -> None:
    url = started(alone, DSTACK_TOKEN="everyone's")
    assert person(alone, url, tokens["ann"])("runs").returncode == 0

    listed = {each["name"]: each for each in json.loads(alone("server", "token", "list", "--json").stdout)}

    assert {name: each["role"] for name, each in listed.items()} == {
        "ann": "member",
        "bob": "member",
        "boss": "admin",
        "shared": "admin",
    }
    assert listed["ann"]["used_at"] >= listed["ann"]["created_at"]
    assert listed["bob"]["used_at"] is None
    assert alone("server", "token", "list").stdout.startswith(b"NAME")


def test_the_shared_token_is_that_of_the_last_start_that_set_one(alone: Alone) -> None:
    started(alone, DSTACK_TOKEN="old")
    alone("server", "stop")
    url = started(alone, DSTACK_TOKEN="new")
    old, new = (person(alone, url, token)("runs").returncode for token in ("old", "new"))
    assert (old, new) == (2, 0)

    alone("server", "stop")
    url = started(alone)
    assert person(alone, url, "new")("runs").returncode == 0
    assert person(alone, url, "new")("server", "token", "revoke", "shared").returncode == 0
    assert person(alone, url, "new")("runs").returncode == 2


def test_a_member_submits_and_changes_only_own_runs(alone: Alone, tokens: dict[str, str]) -> None:
    url = started(alone)
    boss, ann, bob = (person(alone, url, tokens[name]) for name in ("boss", "ann", "bob"))
    first, second = (ann("run", "-d", "--wait-for-runner", "--name", name, "train") for name in ("first", "second"))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr

    refused = [
        bob("stop", "first"),
        bob("hold", "first"),
        bob("runs", "delete", "first"),
        bob("tag", "first", "best"),
        bob("secrets", "delete", "NAME"),
        bob("config", "--storage", "s3://elsewhere"),
        bob("config", "--max-gpus-per-user", "8"),
        bob("runners", "add", "local"),
        bob("runners", "token"),
        bob("runners", "approve", "lab1"),
        bob("prune", "-y"),
        bob("server", "token", "create", "eve", "--role", "admin"),
        bob("server", "token", "list"),
        bob("server", "token", "revoke", "boss"),
    ]
    for done in refused:
        assert done.returncode == 2, done.args
        assert b"the token 'bob' is a member's, and only an admin may" in done.stderr, done.args
    assert bob("stop", "-y", "--all").stderr == b"no unfinished runs\n"
    assert json.loads(bob("runs", "first", "--json").stdout)["user"] == "ann"
    assert [run["name"] for run in json.loads(ann("runs", "--mine", "--json").stdout)] == ["second", "first"]
    assert json.loads(bob("runs", "--mine", "--json").stdout) == []
    assert ann("hold", "first").returncode == 0
    assert boss("release", "first").returncode == 0
    assert ann("stop", "-y", "first").returncode == 0
    assert boss("stop", "-y", "second").returncode == 0

    events = json.loads(bob("events", "--json").stdout)
    who = {(event["kind"], event["run"]): event["actor"] for event in events}
    assert who["run.submitted", "first"] == "ann"
    assert who["job.released", "first"] == "boss"
    assert who["job.stopped", "first"] in ("ann", "server")


def test_revoking_a_token_ends_what_it_follows(
    alone: Alone, tokens: dict[str, str], environment: dict[str, str]
) -> None:
    url = started(alone)
    there = {**environment, "DSTACK_SERVER_URL": url, "DSTACK_TOKEN": tokens["ann"]}
    with subprocess.Popen(
        command("events", "-f"), env=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # it follows

        revoked = person(alone, url, tokens["boss"])("server", "token", "revoke", "ann")
        assert (revoked.returncode, revoked.stderr) == (0, b"ann: revoked\n")
        assert process.wait(10) == 2
        assert b"the server does not accept this token" in process.stderr.read()
    assert person(alone, url, tokens["bob"])("runs").returncode == 0
    assert b"Traceback" not in alone("server", "logs").stdout


def test_commands_as_the_servers_user_need_an_option(alone: Alone, tokens: dict[str, str], tmp_path: Path) -> None:
    url = started(alone)
    boss = person(alone, url, tokens["boss"])
    for words in (
        ("runners", "add", "local"),
        ("runners", "add", "lab1", "--docker", f"touch {tmp_path}/mark"),
        ("runners", "add", "lab1", "--identity", "/etc/ssh/ssh_host_ed25519_key"),
        ("run", "train", "--local", "--dry-run"),
        ("run", "--runner", "local", "train", "--dry-run"),
        ("config", "--storage", "/"),
        ("config", "--storage", str(tmp_path)),
    ):
        done = boss(*words)
        assert done.returncode == 2, words
        assert b"over TCP" in done.stderr, words
        assert b"hint: start the server with --" in done.stderr, words
    assert not (tmp_path / "mark").exists()

    alone("server", "stop")
    url = started(alone, "--allow-server-commands", "--storage-root", str(tmp_path))
    boss, ann = (person(alone, url, tokens[name]) for name in ("boss", "ann"))
    assert boss("run", "train", "--local", "--dry-run").returncode == 0
    assert b"only an admin may use the server's own machine" in ann("run", "train", "--local", "--dry-run").stderr
    assert boss("config", "--storage", str(tmp_path / "artifacts")).returncode == 0
    assert boss("config", "--storage", "/").returncode == 2


def test_the_token_of_config_is_read_from_stdin(
    alone: Alone, environment: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    settings = folder / "home" / "config.json"
    for words, given in (
        (["--token"], "t1\n"),
        (["--token", "--url", "http://lab1"], "t2"),
        (["--token", "-"], "t3\nx"),
    ):
        subprocess.run(command("config", *words), env=environment, input=given.encode(), capture_output=True)
        assert json.loads(settings.read_bytes())["token"] == given[:2]

    shown = alone("config", "--url", "http://127.0.0.1:9", "--token", "visible")

    assert b"warning: the token is visible in `ps`" in shown.stderr
    assert json.loads(settings.read_bytes())["token"] == "visible"
