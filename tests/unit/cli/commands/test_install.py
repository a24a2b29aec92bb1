"""`dstack server install`: the unit as systemd reads it, and what happens where systemd fails."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from dstack.cli.commands.server import unit
from dstack.errors import UsageError
from tests.environment import needs
from tests.environment.product import Home

HOSTILE = '/srv/my home/100%h $HOME/it\'s "x" \\n'

FAKE = """#!/bin/sh
# systemctl as far as `dstack server install` uses it: `start` runs the unit's ExecStart with its environment.
echo "$*" >>"$FAKE/calls"
unit=$HOME/.config/systemd/user/dstack.service
shift
case $1 in
show-environment) [ ! -e "$FAKE/no-bus" ] || { echo 'Failed to connect to bus' >&2; exit 1; } ;;
--quiet) [ -e "$FAKE/running" ] ;;
enable) [ ! -e "$FAKE/refuses" ] || { echo 'Access denied' >&2; exit 4; } ;;
restart)
    touch "$FAKE/running"
    command=$(sed -n 's/^ExecStart=//p' "$unit" | sed 's/[$][$]/\\\\$/g')
    eval "exec env $(sed -n 's/^Environment=//p' "$unit" | tr '\\n' ' ') $command" >"$FAKE/log" 2>&1 &
    echo $! >"$FAKE/pid"
    ;;
stop | disable)
    rm -f "$FAKE/running"
    [ ! -e "$FAKE/pid" ] || { kill "$(cat "$FAKE/pid")"; while kill -0 "$(cat "$FAKE/pid")" 2>/dev/null; do :; done; }
    ;;
esac
"""


@pytest.fixture
def fake(dstack_home: Home, tmp_path: Path) -> Path:
    """A folder on PATH with a fake systemctl, and a loginctl that says whether the user lingers."""
    for name, text in (("systemctl", FAKE), ("loginctl", '#!/bin/sh\ncat "$FAKE/linger"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "linger").write_text("Linger=yes\n")
    dstack_home.environment["PATH"] = f"{tmp_path}{os.pathsep}{dstack_home.environment['PATH']}"
    dstack_home.environment["FAKE"] = str(tmp_path)
    return tmp_path


def unit_of(home: Home) -> Path:
    return home.path / ".config" / "systemd" / "user" / "dstack.service"


def test_systemd_accepts_a_unit_with_any_path(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        needs.missing("systemd-analyze is not installed; install it: apt-get install systemd")
    program = tmp_path / "50% of $HOME" / 'it\'s a "dstack"'
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "dstack.service"
    file.write_text(unit.unit([str(program), "server", "start"], {"DSTACK_HOME": HOSTILE}, Path(HOSTILE)))

    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", file],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"},
        timeout=60,
    )

    said = [line for line in checked.stderr.splitlines() if "dstack" in line]
    assert (checked.returncode, said) == (0, []), checked.stderr


def test_systemd_refuses_a_unit_that_is_wrong(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        needs.missing("systemd-analyze is not installed; install it: apt-get install systemd")
    file = tmp_path / "dstack.service"
    file.write_text(unit.unit(["dstack"], {}, tmp_path).replace('"/bin/sh"', '"/bin/missing"'))

    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", file],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        timeout=60,
    )

    assert checked.returncode != 0


def test_words_of_a_unit_are_quoted() -> None:
    text = unit.unit(["/a b/dstack", "$x", "100%"], {"DSTACK_HOME": 'a"b\\c%d'}, Path("/a"))

    assert 'ExecStart="/bin/sh" "-c" "exec \\"$$0\\" \\"$$@\\"" "/a b/dstack" "$$x" "100%%"\n' in text
    assert 'Environment="DSTACK_HOME=a\\"b\\\\c%%d"\n' in text


def test_a_percent_sign_does_not_end_the_command_in_a_crontab() -> None:
    line = unit.crontab(["/a b/dstack", "server"], {"DSTACK_HOME": "/100% x"})

    assert line == "@reboot DSTACK_HOME='/100\\% x' '/a b/dstack' server"


@pytest.mark.parametrize("text", ["a\nExecStart=/bin/evil", "a\rb", "a\udc80"])
def test_what_no_unit_can_hold_is_refused(text: str) -> None:
    for write in (lambda: unit.unit(["x"], {"A": text}, Path("/a")), lambda: unit.crontab([text], {})):
        with pytest.raises(UsageError, match="control character"):
            write()


def test_each_home_has_its_own_unit() -> None:
    default = Path("/home/ann/.dstack")
    names = {unit.name(home, default) for home in (default, Path("/srv/a"), Path("/srv/b"))}

    assert "dstack.service" in names
    assert len(names) == 3


def test_printing_changes_nothing(dstack_home: Home, fake: Path) -> None:
    printed = dstack_home.run("server", "install", "--print", "--", "--port", "8000")

    assert printed.returncode == 0, printed.stderr
    assert '"server" "start" "--foreground" "--port" "8000"' in printed.stdout
    assert f'Environment="DSTACK_HOME={dstack_home.dstack}"' in printed.stdout
    assert not unit_of(dstack_home).exists()
    assert not (fake / "calls").exists()


def test_an_option_that_start_lacks_is_refused(dstack_home: Home, fake: Path) -> None:
    refused = dstack_home.run("server", "install", "--", "--prot", "8000")

    assert refused.returncode == 2
    assert "no such option '--prot'" in refused.stderr
    assert not unit_of(dstack_home).exists()


def test_the_server_is_installed_twice_and_taken_away(dstack_home: Home, fake: Path) -> None:
    dstack_home.environment.pop("DSTACK_HOME")
    dstack_home.serve()
    before = dstack_home.run("server", "status", "--json").stdout

    first = dstack_home.run("server", "install")
    after = dstack_home.run("server", "status", "--json").stdout
    second = dstack_home.run("server", "install")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "the server is running" in first.stderr
    assert "installed already" in second.stderr
    assert "enable-linger" not in first.stderr
    assert after != before, "the unit's server did not take over"
    calls = (fake / "calls").read_text()
    assert calls.count("--user enable dstack.service") == 1

    gone = dstack_home.run("server", "uninstall")
    again = dstack_home.run("server", "uninstall")

    assert (gone.returncode, again.returncode) == (0, 0), gone.stderr + again.stderr
    assert not unit_of(dstack_home).exists()
    assert "not installed" in again.stderr
    assert dstack_home.run("server", "status").returncode == 75


def test_a_user_who_does_not_linger_is_told_the_command(dstack_home: Home, fake: Path) -> None:
    dstack_home.environment.pop("DSTACK_HOME")
    (fake / "linger").write_text("Linger=no\n")
    try:
        done = dstack_home.run("server", "install")
    finally:
        dstack_home.run("server", "uninstall")

    assert done.returncode == 0, done.stderr
    assert "loginctl enable-linger" in done.stderr


def test_without_systemd_the_line_for_crontab_is_told(dstack_home: Home, fake: Path) -> None:
    (fake / "no-bus").touch()

    done = dstack_home.run("server", "install")

    assert done.returncode == 2
    assert "Failed to connect to bus" in done.stderr
    hint = next(line for line in done.stderr.splitlines() if line.startswith("hint: "))
    line = shlex.split(hint.removeprefix("hint: (crontab -l; echo ").removesuffix(") | crontab -"))[0]
    assert line.startswith(f"@reboot DSTACK_HOME={dstack_home.dstack} PATH=")
    assert line.endswith("/dstack server start")
    assert not unit_of(dstack_home).exists()


def test_what_systemctl_refuses_is_told_in_its_words(dstack_home: Home, fake: Path) -> None:
    dstack_home.environment.pop("DSTACK_HOME")
    (fake / "refuses").touch()

    done = dstack_home.run("server", "install")

    assert done.returncode == 125
    assert "systemctl --user enable dstack.service failed: Access denied" in done.stderr
    assert "journalctl --user" in done.stderr
