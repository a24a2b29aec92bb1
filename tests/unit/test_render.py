"""Values reach sh unchanged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateNotFound, UndefinedError

from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.render import Safe, quote, script, text

SHELLS = [shell for shell in ("dash", "bash", "busybox", "zsh") if shutil.which(shell)]
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=60)
NASTY = "'\"\\ $x `id` $(id) ! !! \n\n*?[] ~ #{%} {{ }} \t\r\x01\x7f é 🦦 \\'"


def printed(shell: str, script: str) -> bytes:
    """Run the script in a shell with the locale of host scripts; return its output."""
    words = [shell, "sh"] if shell == "busybox" else [shell, "--emulate", "sh"] if shell == "zsh" else [shell]
    done = subprocess.run([*words, "-c", script], env={"LC_ALL": "C"}, capture_output=True, check=True)
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60)
@given(values=st.lists(WORDS, max_size=5).map(tuple))
def test_a_shell_sees_the_values(shell: str, values: tuple[str, ...]) -> None:
    command = f"for word in {quote(values)}; do printf '%s\\0' \"$word\"; done"

    assert printed(shell, command) == "".join(f"{value}\0" for value in values).encode()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_sees_what_is_quoted_twice(shell: str) -> None:
    inner = f"printf '%s' {quote(NASTY)}"

    assert printed(shell, f"eval {quote(inner)}") == NASTY.encode()


def test_only_text_and_whole_numbers_are_quoted() -> None:
    assert quote(-7) == "'-7'"
    assert quote(("a", 1)) == "'a' '1'"
    assert quote(()) == ""
    assert quote(Safe("$HOME")) == "$HOME"
    for value in (None, True, 1.5, b"x", ["a"], {"a": 1}):
        with pytest.raises(TypeError, match="can't contain"):
            quote(value)
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'project' is undefined"):
        text("job/entry")
    with pytest.raises(TemplateNotFound):
        text("no-such-template")


def test_every_value_of_a_template_is_quoted() -> None:
    context = HostContext(HostLayout(root="/r/$(id)'", machine="m", server="s"), docker="docker -H 'a b'")

    rendered = script("job/warn", context, signal="x; rm -rf /", name="n")

    assert "root='/r/$(id)'\\'''\n" in rendered
    assert "dk() { 'docker' '-H' 'a b' \"$@\"; }" in rendered
    assert "kill --signal 'x; rm -rf /' 'n' >" in rendered


def test_a_script_that_was_cut_runs_nothing(tmp_path: Path) -> None:
    whole = script(
        "job/warn", HostContext(HostLayout("/r", "", "s"), docker=f"touch {tmp_path}/ran --"), signal="s", name="n"
    )
    end = len(whole.rstrip("\n"))
    for length in range(0, end - len("main"), 7):
        subprocess.run(["sh", "-c", whole[:length]], capture_output=True, cwd=tmp_path, check=False)
        assert list(tmp_path.iterdir()) == [], whole[:length]

    subprocess.run(["sh", "-c", whole[:end]], capture_output=True, cwd=tmp_path, check=True)
    assert (tmp_path / "ran").exists()


def test_the_root_is_below_home_where_it_says_so() -> None:
    rendered = script("job/warn", HostContext(HostLayout("~/a b", "", "s"), docker="echo"), signal="s", name="n")
    shown = rendered.replace("\nmain\n", '\nmain; printf %s "$base"')
    done = subprocess.run(["sh", "-c", shown], env={"HOME": "/h o", "PATH": "/usr/bin:/bin"}, capture_output=True)

    assert done.stdout.startswith(b"/h o/a b/")
    assert done.stdout.endswith(b"/s")
