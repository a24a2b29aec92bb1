"""Secrets reach the job's environment and no other place."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.e2e.project import project, single
from tests.environment.account import Account
from tests.environment.product import Home, program
from tests.environment.waiting import until
from tests.unit.cli.terminal import type_into

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

VALUE = "s3cr3t-$(x)'\"-ünï"


def test_a_secret_is_in_the_environment_and_nowhere_else(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], user: Account, tmp_path: Path, busybox: str
) -> None:
    half = 'printf %s "${TOKEN%%\\$*}"; while [ ! -e /workflow/go ]; do sleep 0.1; done; printf "%s\\n" "${TOKEN#*-}"'
    commands = ['test "$TOKEN" = "$(cat expected)"', 'echo "it is $TOKEN!"', 'printf "%s\\n" "$OTHER"', half]
    folder = single(tmp_path / "p", busybox, *commands, more="secrets: [TOKEN, OTHER]\nenv: {OTHER: weak}")
    (folder / "expected").write_text(VALUE)
    assert cli("secrets", "set", "TOKEN", stdin=VALUE + "\n").returncode == 0
    assert cli("secrets", "set", "OTHER", stdin="strong").returncode == 0

    assert cli("run", "job", "--name", "r", "-d", "-e", "TOKEN=weaker", cwd=folder).returncode == 0
    until(lambda: "******\n" in cli("logs", "r").stdout, "it has said what it knows", 60)
    job = json.loads(cli("runs", "r", "--json").stdout)["jobs"][0]["id"]
    inspected = subprocess.run([*docker, "inspect", f"dstack-{job}"], capture_output=True, check=True).stdout
    on_host = subprocess.run(
        ["grep", "-rlF", "--", "s3cr3t-", user.home / ".dstack-host"], capture_output=True, text=True
    )
    subprocess.run([*docker, "exec", f"dstack-{job}", "/bin/sh", "-c", ": > /workflow/go"], check=True)
    done = cli("wait", "r")

    assert done.returncode == 0
    stars = "*" * len(VALUE.encode())
    log = cli("logs", "r").stdout
    assert log.startswith(f"it is {stars}!\n******\n")
    assert VALUE not in log
    assert "strong" not in log
    assert b"s3cr3t" not in inspected
    # What is there is what this test put into the repository, and what the commands print; never the environment.
    assert not [path for path in on_host.stdout.split() if not path.endswith(("/workflow/expected", "/log"))]
    stored = (dstack_home.dstack / "server" / "state.db").read_bytes()
    assert b"s3cr3t" not in stored
    assert (dstack_home.dstack / "server" / "secret.key").stat().st_mode & 0o777 == 0o600

    listed = cli("secrets", "list", "--json")
    assert [each["name"] for each in json.loads(listed.stdout)] == ["OTHER", "TOKEN"]
    assert "strong" not in listed.stdout
    assert cli("secrets", "delete", "TOKEN").returncode == 0
    assert VALUE not in cli("logs", "r").stdout
    refused = cli("run", "job", cwd=folder)
    assert refused.returncode == 2
    assert "job needs the secret 'TOKEN', which is not set\nhint: dstack secrets set TOKEN" in refused.stderr


KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----"


def test_many_lines_in_every_way_that_a_log_is_read(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    wait = "while [ ! -e /workflow/{0} ]; do sleep 0.1; done"
    commands = [
        'test "$PEM" = "$(cat expected)" && printf "%s\\n" "$PEM"',
        'echo "MIIEvQIBADANBgkq alone"; printf "\\377%s\\377\\n" "$PEM"',
        f"printf hkiG9w0; {wait.format('go')}; echo BAQEFAASC; {wait.format('end')}; echo $ROTATED",
    ]
    folder = single(tmp_path / "p", busybox, *commands, more="secrets: [PEM, ROTATED]")
    (folder / "expected").write_text(KEY)
    assert cli("secrets", "set", "PEM", stdin=KEY + "\n").returncode == 0
    assert cli("secrets", "set", "ROTATED", stdin="the old value").returncode == 0

    assert cli("run", "job", "--name", "r", "-d", cwd=folder).returncode == 0
    until(lambda: "alone" in cli("logs", "r").stdout, "it has begun to say it", 60)
    live, events = dstack_home.popen("logs", "-f", "r"), dstack_home.popen("logs", "-f", "--json", "r")
    job = json.loads(cli("runs", "r", "--json").stdout)["jobs"][0]["id"]
    assert cli("secrets", "set", "ROTATED", stdin="the new value").returncode == 0
    for name in ("go", "end"):
        subprocess.run([*docker, "exec", f"dstack-{job}", "/bin/sh", "-c", f": > /workflow/{name}"], check=True)
    assert cli("wait", "r").returncode == 0

    whole = live.communicate(timeout=60)[0]
    parts = [json.loads(line) for line in events.communicate(timeout=60)[0].splitlines()]
    logs = [part for part in parts if part["event"] == "log"]
    joined = b"".join(base64.b64decode(p["data_base64"]) if "data_base64" in p else p["data"].encode() for p in logs)
    stored = json.loads(cli("logs", "r", "--json").stdout)
    assert joined == whole
    assert any("data_base64" in part for part in logs)
    assert b"".join(base64.b64decode(p.get("data_base64", "")) or p["data"].encode() for p in stored) == whole
    for said in (whole, cli("logs", "r").stdout.encode(errors="surrogateescape")):
        assert not [
            part for part in (*KEY.splitlines(), "hkiG9w0", "BAQEFAASC", "the old value") if part.encode() in said
        ]
        assert said.endswith(b"*" * 16 + b"\n" + b"*" * 13 + b"\n")
    assert cli("logs", "r", "--grep", "MIIE").stdout == ""
    assert cli("logs", "r", "--grep", "alone").stdout == "*" * 16 + " alone\n"


def test_a_secret_that_is_deleted_too_soon(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    text = f"""
    workflows:
      - {{name: first, image: {busybox}, commands: ["while [ ! -e /workflow/go ]; do sleep 0.1; done"]}}
      - {{name: second, image: {busybox}, commands: ["true"], secrets: [TOKEN], depends-on: {{workflows: [first]}}}}
    """
    folder = project(tmp_path / "p", text)
    assert cli("secrets", "set", "TOKEN", stdin="long enough").returncode == 0
    assert cli("run", "second", "--name", "r", "-d", cwd=folder).returncode == 0

    deleted = cli("secrets", "delete", "TOKEN")

    assert deleted.returncode == 0
    assert "warning: second of r needs it to start; set it again, or stop the run" in deleted.stderr
    assert cli("stop", "r", "--abort", "-y").returncode == 0
    assert cli("wait", "r").returncode == 143


def test_a_secret_is_typed_at_a_prompt(cli: Cli, dstack_home: Home, runner: str, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, 'test "$TOKEN" = "what I typed"', more="secrets: [TOKEN]")
    words = [str(program()), "secrets", "set", "TOKEN"]

    shown, code = type_into(words, [("TOKEN: ", "what I typed\n")], cwd=folder, environment=dstack_home.environment)

    assert code == 0
    assert "TOKEN: set" in shown
    assert "what I typed" not in shown
    assert cli("run", "job", cwd=folder).returncode == 0


def test_what_can_be_no_secret(cli: Cli) -> None:
    assert cli("secrets", "set", "A-B", stdin="x").returncode == 2
    assert cli("secrets", "set", "AB", stdin="").returncode == 2
    assert cli("secrets", "set", "UID", stdin="long enough").returncode == 2
    assert cli("secrets", "delete", "AB").returncode == 2
    assert "shorter than 4 bytes" in cli("secrets", "set", "AB", stdin="x").stderr
    assert "AB" in cli("secrets", "list").stdout
