from __future__ import annotations

import pytest

from dstack.errors import UsageError
from dstack.model.project.graph import closure, walk
from dstack.model.project.workflow import DependsOn, Workflow


def workflow(name: str, *needed: str) -> Workflow:
    return Workflow(name=name, image="i", commands=("c",), depends_on=DependsOn(workflows=needed))


DIAMOND = [workflow("end", "left", "right"), workflow("right", "top"), workflow("left", "top"), workflow("top")]


def names(*workflows: Workflow) -> list[str]:
    return [each.name for each in workflows]


def test_dependencies_come_first_and_each_once() -> None:
    assert names(*closure(DIAMOND, "end")) == ["top", "left", "right", "end"]
    assert names(*closure(DIAMOND, "left")) == ["top", "left"]
    assert closure({each.name: each for each in DIAMOND}, "end") == closure(DIAMOND, "end")


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(UsageError, match="no workflow is named 'rigth'; did you mean 'right'"):
        closure(DIAMOND, "rigth")


def test_a_cycle_and_a_gap_are_refused() -> None:
    with pytest.raises(UsageError, match="cycle: a -> b -> a"):
        closure([workflow("a", "b"), workflow("b", "a")], "a")
    with pytest.raises(UsageError, match="workflow 'a' depends on unknown workflow 'b'"):
        closure([workflow("a", "b")], "a")


def test_a_chain_may_be_long() -> None:
    chain = [workflow(str(n), str(n + 1)) for n in range(3000)] + [workflow("3000")]
    assert names(*closure(chain, "0"))[0] == "3000"


def test_every_cycle_is_found_once() -> None:
    order, cycles = walk({"a": ["b"], "b": ["a", "c"], "c": ["c"], "d": ["a"]}, ["a", "d"])
    assert cycles == [["a", "b", "a"], ["c", "c"]]
    assert order == ["c", "b", "a", "d"]
