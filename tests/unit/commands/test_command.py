"""How a command reads its answer."""

from __future__ import annotations

import pytest

from dstack.commands.command import Command, Result
from dstack.errors import CommandError, HostError
from dstack.model.runner.host_context import OTHER_MACHINE

COUNT = Command("counting", "echo count=3", lambda result: int(result.values("count")["count"]))


def test_pairs_keep_their_order_and_are_clean() -> None:
    result = Result(0, b"a=1\n\nb=x=\xff\x1b[31m\x85\ra=2\na=2\n", b"")

    assert result.pairs() == [("a", "1"), ("b", "x=\ufffd\ufffd a=2"), ("a", "2")]
    assert result.values(longest=5)["b"] == "x=..."
    assert result.each("a") == ["1", "2"]


@pytest.mark.parametrize("answer", [b"count=many\n", b"size=3\n", b"Welcome!\n", b"\xff\n"])
def test_an_answer_that_cannot_be_read_names_the_command(answer: bytes) -> None:
    with pytest.raises(CommandError, match=r"^counting failed with exit status 0: the host's answer can't be parsed: "):
        COUNT.parse(Result(0, answer, b""))


@pytest.mark.parametrize("bug", [ValueError("odd"), OverflowError("odd"), IndexError("odd"), RecursionError("odd")])
def test_whatever_a_parser_stumbles_over_is_the_hosts_answer(bug: Exception) -> None:
    def read(result: Result) -> None:
        raise bug

    with pytest.raises(CommandError, match="the host's answer can't be parsed: odd"):
        Command("counting", "", read).parse(Result(0, b"", b""))


def test_a_script_that_fails_says_so_on_a_terminal_and_briefly() -> None:
    with pytest.raises(CommandError) as refused:
        COUNT.parse(Result(1, b"", b"x" * 10**7 + b"\x1b]0;title\x07 no \xff space"))

    assert refused.value.stderr.endswith(" no \ufffd space")
    assert len(refused.value.message) < 5000


def test_a_script_that_fails_says_why() -> None:
    with pytest.raises(CommandError, match=r"^counting failed with exit status 3: no space$"):
        COUNT.parse(Result(3, b"count=3\n", b"no space\n"))


def test_another_machine_is_not_a_failed_command() -> None:
    with pytest.raises(HostError, match="machine id 0a1b") as refused:
        COUNT.parse(Result(OTHER_MACHINE, b"machine=0a1b\n", b""))

    assert not isinstance(refused.value, CommandError)
