"""Whatever a host answers, a command accepts it or says that it can't be parsed; what it accepts can be stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dstack.commands.artifacts.collect import listing
from dstack.commands.artifacts.fetch_dependencies import gather
from dstack.commands.artifacts.retain import free, keep, reuse
from dstack.commands.artifacts.sync import sync
from dstack.commands.artifacts.upload import sums, upload
from dstack.commands.command import Command, Result
from dstack.commands.job.launch import launch
from dstack.commands.job.observe import observe
from dstack.commands.job.receive_code import receive
from dstack.commands.job.stop import stop
from dstack.commands.machine import amd
from dstack.commands.machine.cache_folders import caches
from dstack.commands.machine.orphans import prune
from dstack.commands.machine.probe import probe
from dstack.commands.machine.pull import PullProgress
from dstack.commands.machine.sample import sample
from dstack.commands.machine.uninstall import running, uninstall
from dstack.errors import HostError
from dstack.model.api import wire
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Order
from dstack.model.job.manifest import File
from dstack.model.paths import HostLayout
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from tests.fuzz import fuzz

CONTEXT = HostContext(HostLayout(root="/r", machine="0", server="s"))
CODE = Snapshot(repo="r", tree="0" * 40, commit=None, branch=None)
FILES = [File("a", 1, 0o644, "0" * 64), File("big", 10**10, 0o644, "1" * 64)]
OUT = Artifact(path="out")
COMMANDS: dict[str, Command[Any]] = {
    "observe": observe(CONTEXT, "j"),
    "launch": launch(CONTEXT, Order(job="j", attempt="j", image="i", snapshot=CODE, script="x")),
    "receive": receive(CONTEXT, CODE),
    "stop": stop(CONTEXT, "j", 1),
    "probe": probe("/r", "docker"),
    "sample": sample(CONTEXT),
    "caches": caches(CONTEXT),
    "prune": prune(CONTEXT, (), {}, dry_run=True),
    "running": running(CONTEXT),
    "uninstall": uninstall(CONTEXT),
    "listing": listing(CONTEXT, "j", "", "i", (OUT,)),
    "sync": sync(CONTEXT, "j", "", "i", OUT, 1, keep=True),
    "keep": keep(CONTEXT, "j", "", "i", (OUT,)),
    "reuse": reuse(CONTEXT, "j", ["k"], []),
    "free": free(CONTEXT, ["k"]),
    "gather": gather(CONTEXT, "j", FILES, {"a": "u", "big": "v"}),
    "sums": sums(CONTEXT, "j", "made", FILES),
    "upload": upload(CONTEXT, "j"),
}
KEYS = (
    *("exit", "claim", "container", "boot", "docker", "log_size", "disk_free", "outcome", "need", "received", "digest"),
    *("machine", "user", "kernel", "cpus", "memory", "folder", "writable", "load", "memory_free", "clock", "cost"),
    *("docker_disk_free", "docker_root", "disk_inodes", "client", "git", "mig", "gpu", "render", "amd", "app"),
    *("gpu_memory", "cpu", "uptime", "job", "cache", "mirror", "image", "kept", "copied", "freed", "running", "sent"),
    *("refused", "trouble", "project", "path", "names", "stats", "hashes", "links", "long", "end", "same", "moving"),
    *("whole", "parts", "hashes"),
)
NUMBERS = ("0", "1", "-1", "9" * 15, "9" * 20, "9" * 5000, "1e999", "NaN", "inf", "\u0663", "1.5", "0x1", "")
CARDS = [
    json.dumps([{"gpu": number, "vram": {"size": {"value": number, "unit": unit}}, "bus": unit, "asic": unit}])
    for number in (0, -1, 10**30, 1e308, float("inf"), float("nan"), "9" * 5000, [], None)
    for unit in ("GB", [], {})
]
VALUES = (
    *(
        "running=yes",
        "ok",
        "none",
        "claimed",
        "yes",
        '{"Status": "x", "ExitCode": 1e999}',
        '{"Status": "\\ud800"}',
        "[" * 3000,
    ),
    *("0, GPU, 1, U, 5, Enabled", "0, U, 5, 6, 7", "a b c d", "1 2 3", "U,1,2,others,x", "\udcff\x1b[2J\u202e", *CARDS),
)


VALID = {
    **{"exit": "", "claim": "none", "container": "none", "boot": "b", "docker": "1:2", "log_size": "0"},
    **{"machine": "0", "user": "u", "kernel": "k", "cpus": "2", "folder": "/r", "writable": "yes", "disk_free": "9"},
    **{"cpu": "1 2", "uptime": "1.5", "cost": "1", "outcome": "started", "received": "ok", "kept": "yes"},
}


def answers() -> st.SearchStrategy[bytes]:
    """Valid answers with some lines changed and added, and anything else."""
    value = st.sampled_from((*NUMBERS, *VALUES)) | st.text(max_size=10)
    words = st.lists(value, min_size=1, max_size=3).map(" ".join)
    memory = st.sampled_from(({"memory": "7"}, {"memory": "7 1"}))
    changed = st.dictionaries(st.sampled_from(KEYS), words, max_size=2)
    more = st.lists(st.builds("{}={}\n".format, st.sampled_from(KEYS), words), max_size=5).map("".join)

    def answer(memory: dict[str, str], changed: dict[str, str], more: str) -> bytes:
        said = {**VALID, **memory, **changed}
        return ("".join(f"{key}={text}\n" for key, text in said.items()) + more).encode("utf-8", "surrogatepass")

    return (
        st.builds(answer, memory, changed, more)
        | more.map(lambda text: text.encode("utf-8", "surrogatepass"))
        | st.binary(max_size=100)
    )


def storable(answer: object) -> None:
    """Check that it becomes JSON and back, as facts, samples and observations do."""
    built = msgspec.to_builtins(answer)
    wire.decode(wire.encode(built), object)


@pytest.mark.parametrize("name", COMMANDS)
@fuzz
@given(stdout=answers())
def test_any_answer(name: str, stdout: bytes) -> None:
    try:
        answer = COMMANDS[name].parse(Result(0, stdout, b""))
    except HostError as refused:
        refused.message.encode()
    else:
        storable(answer)


@fuzz
@given(st.sampled_from(CARDS) | st.text(alphabet='[]{}":,gpu 01e', max_size=200))
@example("[" * 10**6)
@example("[1," * 300_000)
@example('{"card0": ' * 5000)
def test_any_gpu_tool(text: str) -> None:
    for read in (amd.gpus, amd.uses):
        storable(read(text))


MESSAGES: tuple[Callable[[str], str], ...] = (
    '{{"status": "Downloading", "id": "a", "progressDetail": {{"current": {0}, "total": {0}}}}}'.format,
    '{{"progressDetail": {0}, "id": {0}, "status": {0}}}'.format,
    '{{"error": {0}}}'.format,
    "0123456789ab: {0}".format,
    "{0}".format,
)


@fuzz
@given(
    st.lists(
        st.builds(
            lambda form, value: form(value),
            st.sampled_from(MESSAGES),
            st.sampled_from((*NUMBERS, "[]", "{}", '"x"', "1e308", "[" * 3000, '"\\u001b[2J"')) | st.text(max_size=9),
        ),
        max_size=9,
    ),
    st.integers(1, 50),
)
def test_any_progress_of_a_pull(lines: list[str], size: int) -> None:
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    progress = PullProgress()
    for at in range(0, len(data), size):
        progress.feed(data[at : at + size])
    progress.end()

    storable([progress.words, progress.progress, progress.trouble])
    assert "\x1b" not in progress.words + progress.trouble


def test_a_pull_without_end_fills_no_memory() -> None:
    progress = PullProgress()
    for number in range(3000):
        progress.feed(b"x" * 1000)
        progress.feed(f"\n{number:012x}: Waiting\nan error\n".encode())
        progress.feed(b"y" * 1000)

    assert len(progress.layers) <= 1000
    assert len(progress.trouble) < 20_000
