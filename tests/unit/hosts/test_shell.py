from __future__ import annotations

import gzip
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.hosts.shell import DAMAGED, LOGIN_COMMAND, START, AfterMarker, new_marker, wrap

MARKER = "dstack-0123456789abcdef0123456789abcdef"
SHELLS = ["dash", "bash", "zsh", "fish", "tcsh", "busybox sh", "bash --posix"]


def login(shell: str, sent: bytes, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    program, *options = shell.split()
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run(
        [program, *options, "-c", LOGIN_COMMAND], input=sent, capture_output=True, cwd=cwd, timeout=60
    )


def after(output: bytes) -> bytes:
    return output.partition(f"{MARKER}\n".encode())[2]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_with_anything_in_it_arrives_unchanged_through_a_login_shell(shell: str) -> None:
    text = 'it\'s !important $HOME \\n \\\\ `x` "q" * ? [a] {b,c} ~ # % ^ & | ; < > é\t.'
    script = "cat <<'END'\n" + text + "\nEND\nexit 7\n"

    result = login(shell, wrap(script, MARKER))

    assert after(result.stdout).decode() == text + "\n"
    assert result.returncode == 7


@pytest.mark.parametrize("shell", SHELLS)
def test_what_follows_the_script_is_its_stdin_to_the_byte(shell: str) -> None:
    payload = bytes(range(256)) * 1000

    result = login(shell, wrap("cat", MARKER) + payload)

    assert after(result.stdout) == payload


def test_outside_a_terminal_a_script_for_one_does_not_begin() -> None:
    result = login("sh", wrap("echo one", MARKER, terminal=True))

    assert result.returncode == DAMAGED
    assert result.stdout == b""
    assert b"stty" in result.stderr


def changed(sent: bytes, place: int) -> bytes:
    return sent[:place] + bytes([sent[place] ^ 1]) + sent[place + 1 :]


def damages(sent: bytes) -> list[bytes]:
    """Return the script cut short, and with one bit changed in its first, middle and last parts and in its sum."""
    body = sent.index(b"\n") + 1
    return [sent[:-1], sent[:-4], sent[:body], *(changed(sent, at) for at in (body, body + 12, -12, -8, -1))]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_damaged_script_does_not_begin(shell: str) -> None:
    for damaged in damages(wrap("echo one; echo two", MARKER)):
        result = login(shell, damaged)
        assert result.returncode == DAMAGED
        assert result.stdout == b""


def test_busybox_alone_checks_a_script_too(tmp_path: Path) -> None:
    # Given a host whose programs are busybox's
    busybox = shutil.which("busybox") or pytest.skip("busybox is not installed")
    for name in ("sh", "dd", "gzip", "cat"):
        (tmp_path / name).symlink_to(busybox)

    def run(sent: bytes) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": str(tmp_path)}
        return subprocess.run([tmp_path / "sh", "-c", START], input=sent, capture_output=True, env=environment)

    # When a whole script and damaged ones arrive, then only the whole one begins, and its stdin is what follows
    sent = wrap("echo one; cat", MARKER)
    assert after(run(sent + b"rest").stdout) == b"one\nrest"
    for damaged in damages(sent):
        assert (run(damaged).returncode, run(damaged).stdout) == (DAMAGED, b"")


def test_a_script_has_a_fixed_surrounding() -> None:
    script = 'umask; echo "$LC_ALL"; echo "$PATH"; echo "$#"'
    environment = {"LC_ALL": "tr_TR.UTF-8", "PATH": "/opt/x"}

    result = subprocess.run(
        ["/bin/sh", "-c", START.replace("read", "PATH=$PATH:/usr/bin:/bin; read", 1)],
        input=wrap(script, MARKER),
        capture_output=True,
        env=environment,
        timeout=60,
    )

    mask, locale, path, arguments = after(result.stdout).decode().splitlines()
    assert int(mask, 8) == 0o077
    assert locale == "C"
    assert path.startswith("/opt/x:")
    assert path.endswith(":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/snap/bin")
    assert arguments == "0"


def test_an_empty_path_does_not_put_the_current_folder_on_it() -> None:
    result = subprocess.run(
        ["/bin/sh", "-c", f"PATH=; {START}"],
        input=wrap('echo "$PATH"', MARKER),
        capture_output=True,
        timeout=60,
    )

    assert after(result.stdout).startswith(b"/usr/local/bin:")


def test_file_names_in_the_folder_do_not_change_the_bootstrap(tmp_path: Path) -> None:
    line = wrap("true", MARKER).split(b"\n")[0].decode()
    for word in ("a", "x", "-", "test"):
        (tmp_path / word).touch()

    assert not set("*?[]'\t") & set(line)
    assert "  " not in line
    assert login("dash", wrap("echo fine", MARKER), tmp_path).stdout.endswith(b"fine\n")


def test_stderr_has_the_marker_too() -> None:
    result = login("dash", wrap("echo trouble >&2", MARKER))

    assert result.stderr == f"{MARKER}\ntrouble\n".encode()


def test_a_long_script_arrives() -> None:
    lines = "".join(f"echo {n}\n" for n in range(5000))

    result = login("dash", wrap(lines, MARKER))

    assert after(result.stdout).decode() == "".join(f"{n}\n" for n in range(5000))


def test_markers_differ() -> None:
    assert new_marker() != new_marker()
    assert len(new_marker()) == len(MARKER)


@given(st.binary(max_size=300), st.binary(max_size=300), st.lists(st.integers(0, 700), max_size=8))
def test_output_before_the_marker_is_dropped_however_it_is_cut(noise: bytes, rest: bytes, cuts: list[int]) -> None:
    whole = noise + f"{MARKER}\n".encode() + rest
    edges = [0, *sorted(cuts), len(whole)]
    stream = AfterMarker(MARKER)

    kept = b"".join(stream.feed(whole[a:b]) for a, b in pairwise(edges))

    assert kept == rest
    assert stream.found
    assert stream.noise == noise


def test_endless_noise_is_kept_only_in_part() -> None:
    stream = AfterMarker(MARKER)

    for _ in range(100):
        assert stream.feed(b"x" * 65536) == b""

    assert not stream.found
    assert stream.noise == b"x" * 4096
    assert stream.feed(b"y" + f"{MARKER}\n".encode() + b"z") == b"z"


def test_the_wrapped_script_is_the_compressed_one_of_that_length() -> None:
    sent = wrap("echo 'ü'\n", MARKER)

    line, _, body = sent.partition(b"\n")
    assert gzip.decompress(body).decode() == "echo 'ü'\n"
    assert f"bs={len(body)} count=1 ".encode() in line
    assert MARKER.encode() in line
    assert wrap("echo 'ü'\n", MARKER) == sent
