"""What a launch sends, and how its answer is read."""

from __future__ import annotations

import pytest

from dstack.commands.command import Result
from dstack.commands.job.launch import exports, launch
from dstack.errors import CommandError, HostError
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Launched, Order
from dstack.model.job.job import Origin
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext

CONTEXT = HostContext(HostLayout(root="/r", machine="m", server="s"))
CODE = Snapshot(repo="r", tree="t")
ORDER = Order(job="j", attempt="j", image="i", snapshot=CODE, script="true", environment={"TOKEN": "hunter2"})


def answered(stdout: str, status: int = 0, stderr: str = "") -> Launched:
    return launch(CONTEXT, ORDER).parse(Result(status, stdout.encode(), stderr.encode()))


@pytest.mark.parametrize("outcome", ["started", "exists"])
def test_a_launch_that_began(outcome: str) -> None:
    said = answered(f"outcome={outcome}\nboot=b\ndocker=1:2 3:4\ndigest=a@sha256:c\n")

    assert said == Launched(outcome, Origin("b", "1:2 3:4"), "a@sha256:c")  # type: ignore[arg-type]


def test_a_launch_that_lacks_something() -> None:
    assert answered("need=image\n") == Launched("need-image")
    assert answered("need=code\ncommits=\ntrees=\n") == Launched("need-code")
    assert answered("need=code\ncommits=a b \ntrees=c\n") == Launched("need-code", commits=("a", "b"), trees=("c",))
    assert answered("outcome=fenced\n") == Launched("fenced")


def test_docker_refuses_in_its_own_words() -> None:
    with pytest.raises(CommandError, match="exit status 125: docker: no GPU") as refused:
        answered("", 125, "docker: no GPU\n")
    assert refused.value.stderr == "docker: no GPU\n"


@pytest.mark.parametrize("answer", ["", "outcome=odd\n", "need=money\n", "outcome\n"])
def test_an_answer_that_is_not_understood(answer: str) -> None:
    with pytest.raises(CommandError, match="launching the job"):
        answered(answer)


def test_another_machine() -> None:
    with pytest.raises(HostError, match=r"\(machine id ffff\)"):
        answered("machine=ffff\n", 94)


def test_values_of_the_environment_are_not_shown() -> None:
    command = launch(CONTEXT, ORDER)

    assert "hunter2" in command.script
    assert "hunter2" not in str(command)
    assert str(launch(CONTEXT, Order(job="j", attempt="j", image="i", snapshot=CODE, script="true")))


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A;B", "Ä", "A\n"])
def test_what_is_no_name_is_not_exported(name: str) -> None:
    with pytest.raises(ValueError, match="environment variable"):
        exports({name: "x"})


def test_ids_that_would_leave_their_folder_are_refused() -> None:
    for bad in ("", "../x", "a/b", ".x", "a\n"):
        with pytest.raises(ValueError, match="is not a valid folder name"):
            launch(CONTEXT, Order(job="j", attempt=bad, image="i", snapshot=CODE, script="true"))
