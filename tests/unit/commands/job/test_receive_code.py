from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dstack.commands.command import Result
from dstack.commands.job.receive_code import receive
from dstack.errors import CommandError
from dstack.mirror.mirror import Mirror
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Received
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.snapshot.take import take

SNAPSHOT = Snapshot(repo="r", tree="4b825dc642cb6eb9a060e54bf8d69288fbee4904")


def context(root: str) -> HostContext:
    return HostContext(HostLayout(root, "", "server"))


@pytest.mark.parametrize(
    ("answer", "received"), [(b"received=ok\n", Received.OK), (b"need=full\n", Received.NEED_FULL)]
)
def test_the_answer(answer: bytes, received: Received) -> None:
    assert receive(context("/x"), SNAPSHOT).parse(Result(0, answer, b"")) is received


@pytest.mark.parametrize(
    "result", [Result(1, b"", b"disk full"), Result(0, b"", b""), Result(0, b"received=no\n", b"")]
)
def test_no_answer_is_an_error(result: Result) -> None:
    with pytest.raises(CommandError):
        receive(context("/x"), SNAPSHOT).parse(result)


def test_the_script_takes_a_pack_in(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "a").write_text("a\n")
    mirror = Mirror(tmp_path / "mirror.git")
    with take(project) as taken:
        mirror.receive(taken.snapshot, taken.pack())
    with mirror.pack(taken.snapshot) as pack:
        command = receive(context(str(tmp_path / "it's a root")), taken.snapshot, pack.read_bytes())
    for _ in range(2):
        done = subprocess.run(["sh", "-c", command.script], input=command.stdin, capture_output=True)
        result = Result(done.returncode, done.stdout, done.stderr)
        assert command.parse(result) is Received.OK
    (objects,) = (tmp_path / "it's a root").glob("*/server/mirrors/*.git/objects")
    assert list((objects / "pack").glob("*.pack"))
