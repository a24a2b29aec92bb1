from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.errors import UsageError
from dstack.model.project.interpolation import expand, mentions, replace_config_args, troubles

VALUES = {"x": "1", "x_y": "$x", "null": None, "config_args": "--a 'b c'"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("$x", "1"),
        ("${x}", "1"),
        ("a/$x/b", "a/1/b"),
        ("$x.pt", "1.pt"),
        ("$x-$x", "1-1"),
        ("${x}_y", "1_y"),
        ("$x_y", "$x"),
        ("$$x", "$x"),
        ("$$$x", "$1"),
        ("5$", "5$"),
        ("$5 $. $", "$5 $. $"),
        ("a\n$x\n", "a\n1\n"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, VALUES) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$zz", r"undefined variable '\$zz'; define it in configs\.yaml, or write '\$\$zz' for a literal '\$zz'$"),
        ("$x_z", r"undefined variable '\$x_z'; did you mean '\$x_y'\?"),
        ("${x:-1}", r"'\$\{x:-1\}' is not a valid variable"),
        ("${x", r"'\$\{x' is not a valid variable"),
        ("${}", r"'\$\{\}' is not a valid variable"),
        ("$null", r"variable '\$null' is null.*--null VALUE"),
    ],
)
def test_expand_refuses(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand(text, VALUES)


@given(st.text(alphabet="$xy_{}a\\ 1", max_size=12))
def test_troubles_tells_what_expand_refuses(text: str) -> None:
    values = {"x": "1", "y": "2"}
    found = list(troubles(text, values))
    if found:
        with pytest.raises(UsageError) as caught:
            expand(text, values)
        assert caught.value.message == found[0]
    else:
        expand(text, values)


@given(st.text())
def test_doubled_dollars_protect_any_text(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("run $config_args", "run ARGS"),
        ("run ${config_args} $config_args;", "run ARGS ARGS;"),
        ("$config_args_x", "$config_args_x"),
        ("${config_args_x}", "${config_args_x}"),
        ("${config_args:-}", "${config_args:-}"),
        ("\\$config_args", "\\$config_args"),
        ("\\${config_args}", "\\${config_args}"),
        ("\\\\$config_args", "\\\\ARGS"),
        ("$$config_args", "$$config_args"),
        ("$model $job_id $(x) `y`", "$model $job_id $(x) `y`"),
        ("config_args", "config_args"),
        ("a \\\n  $config_args", "a \\\n  ARGS"),
    ],
)
def test_only_config_args_is_replaced_in_commands(command: str, expected: str) -> None:
    assert replace_config_args(command, "ARGS") == expected


def test_what_is_put_in_is_not_read_again() -> None:
    assert replace_config_args("$config_args", r"\1 \g<0> $config_args") == r"\1 \g<0> $config_args"


def test_mentions() -> None:
    assert mentions("a $x", "x")
    assert mentions("a ${x}", "x")
    assert not mentions("a $xy $$x", "x")
