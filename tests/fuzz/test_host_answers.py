"""Whatever a host answers, a command accepts it or says that it can't be parsed; what it accepts can be stored."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from http.client import IncompleteRead
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from dstack.client.frames import read_frames
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
from dstack.commands.machine.take_stock import take_stock
from dstack.commands.machine.uninstall import running, uninstall
from dstack.decide import Recorded, decide
from dstack.engine.reconcile.adopt import launch_record
from dstack.hosts.shell import AfterMarker
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Order
from dstack.model.job.manifest import File, decode, objection, problem
from dstack.model.paths import HostLayout
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from tests.fuzz import fuzz, in_time, outcome, storable

CONTEXT = HostContext(HostLayout(root="/r", machine="0", server="s"))
CODE = Snapshot(repo="r", tree="0" * 40, commit=None, branch=None)
FILES = [File("a", 1, 0o644, "0" * 64), File("big", 10**10, 0o644, "1" * 64)]
OUT = Artifact(path="out")
RECORDED = Recorded()
COMMANDS: dict[str, Command[Any]] = {
    "stock": take_stock(CONTEXT, "owner", 1, ()),
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
    *("whole", "parts", "hashes", "attempt", "record", "silence", "told", "asked", "uptime"),
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
    *(
        "0, GPU, 1, U, 5, Enabled",
        "0, U, 5, 6, 7",
        "a b c d",
        "1 2 3",
        "U,1,2,others,x",
        "j-1 claimed yes 5",
        "[" * 60_000,
        "\udcff\x1b[2J\u202e",
        *CARDS,
    ),
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


@fuzz
@example(b"attempt=j-1 claimed yes 5\nrecord=" + b"[" * 60_000, b"", 0)
@example(b"attempt=j-1 claimed yes " + b"9" * 4000, b"", 0)
@given(answers(), st.binary(max_size=60), st.sampled_from((0, 0, 0, 1, 93, 94, 95, 255)))
def test_any_answer(stdout: bytes, stderr: bytes, status: int) -> None:
    for name, command in COMMANDS.items():
        answer = outcome(lambda: command.parse(Result(status, stdout, stderr)), size=len(stdout))  # noqa: B023
        storable(answer)
        if name == "observe" and answer is not None:
            storable(decide(RECORDED, answer))
        if name == "stock" and answer is not None:
            for found in answer.attempts.values():
                storable(launch_record(found))


names = st.sampled_from(
    (b"./out/a", b"./out/a\nb", b"./out/\\", b"./out/../x", b"./.git/config", b"/etc/passwd", b"./out/\xff")
)
names |= st.binary(min_size=1, max_size=8).map(lambda name: b"./out/" + name.replace(b"\0", b""))
SUM = hashlib.sha256(b"").hexdigest().encode()


@st.composite
def listings(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A listing as a host writes it, and the names of its regular files."""
    files = draw(st.lists(names, max_size=4, unique=True))
    links = draw(st.dictionaries(names, st.sampled_from((b"a", b"../x", b"/etc", b"\n", b"\xff")), max_size=2))
    mode = draw(st.sampled_from((b"81a4", b"81ff", b"1180", b"4000", b"ffffffff", b"0")))
    sections = {
        b"names": b"".join(name + b"\0" for name in files),
        b"stats": b"".join(mode + b" 5 " + name + b"\n" for name in files),
        b"hashes": b"".join(_hashed(name) for name in files),
        b"links": b"".join(name + b"\0" + target + b"\0" for name, target in links.items()),
        b"long": b"",
        b"trouble": draw(st.sampled_from((b"", b"find: \x1b[2J\xff"))),
    }
    head = b"path=present\n"
    body = b"".join(key + b"=%d\n" % len(data) + data for key, data in sections.items())
    return head + body + b"end=\n", [name for name in files if mode in (b"81a4", b"81ff")]


def _hashed(name: bytes) -> bytes:
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != name else b"") + SUM + b"  " + escaped + b"\n"


@fuzz
@given(listings())
def test_every_name_of_a_listing_is_stored_or_refused(made: tuple[bytes, list[bytes]]) -> None:
    listed, files = made

    found = outcome(lambda: COMMANDS["listing"].parse(Result(0, listed, b"")), "listing the artifacts failed")
    if found is None:
        return

    assert len(found.files) + len(found.refused) >= len(files)
    assert problem(found.files) is None
    for each in found.files:
        assert f"{each.path}/".startswith("out/")
        assert b"./" + each.path.encode("utf-8", "surrogateescape") in files or each.link is not None
    storable(found)


@fuzz
@given(listings(), st.data())
def test_any_damaged_listing(made: tuple[bytes, list[bytes]], data: st.DataObject) -> None:
    listed, _ = made
    at = data.draw(st.integers(0, len(listed)))
    cut = data.draw(st.integers(0, 5))
    damaged = listed[:at] + data.draw(st.binary(max_size=4)) + listed[at + cut :]
    before = b"same=0\nmoving=0\n" if data.draw(st.booleans()) else b""

    for name in ("listing", "sync"):
        found = outcome(lambda: COMMANDS[name].parse(Result(0, before + damaged, b"")), size=len(damaged))  # noqa: B023
        for each in (found.files if name == "listing" else found.found) if found else ():
            assert objection(each.path) is None
        storable(found)


@fuzz
@given(
    st.lists(
        st.builds(
            dict, path=st.text(max_size=6) | st.sampled_from(("a", "a/b", "../x", "/x", "a/../b", "\0", "\udcff"))
        )
        | st.dictionaries(
            st.sampled_from(("path", "size", "mode", "sha256", "link")), st.sampled_from((*NUMBERS, 0, -1, 2**70, None))
        ),
        max_size=3,
    ).map(lambda files: json.dumps({"run": "r", "workflow": "w", "job": "j", "files": files}).encode())
    | st.binary(max_size=50)
)
@example(b'{"files": ' + b"[" * 100_000)
def test_any_manifest(document: bytes) -> None:
    with in_time(len(document)):
        try:
            manifest = decode(document)
        except (ValueError, RecursionError):
            return
    assert problem(manifest.files) is None


@fuzz
@given(
    st.lists(st.binary(max_size=20) | st.sampled_from((b"MARK", b"MARK\n", b"MA", b"RK\n", b"MARK\r\n"))), st.booleans()
)
def test_any_banner_before_the_output(pieces: list[bytes], terminal: bool) -> None:
    marker, end = AfterMarker("MARK", terminal=terminal), b"MARK\r\n" if terminal else b"MARK\n"

    printed = b"".join(map(marker.feed, pieces))

    before, found, after = b"".join(pieces).partition(end)
    assert (marker.found, printed) == (bool(found), after)
    assert marker.noise == before[-4096:] or not found


@fuzz
@given(
    st.lists(
        st.tuples(
            st.builds(
                lambda **event: json.dumps(event).encode(),
                event=st.sampled_from(("log", "run", "", 1)),
                id=st.sampled_from(("j", None)),
                offset=st.sampled_from((0, 3, -1, 2**70, None, "x")),
                bytes=st.sampled_from((0, 3, -1, 2**70, None)),
            )
            | st.binary(max_size=9),
            st.sampled_from((b"\n", b"\nabc", b"")),
        ).map(b"".join)
    ),
    st.integers(1, 9),
)
def test_any_frames(sent: list[bytes], size: int) -> None:
    data = b"".join(sent)
    with in_time(len(data)):
        try:
            for frame in read_frames(io.BufferedReader(io.BytesIO(data), size)):  # type: ignore[arg-type]
                assert len(frame.data) == (frame.event.bytes or 0)
        except (ValueError, IncompleteRead):
            return


@fuzz
@given(st.sampled_from(CARDS) | st.text(alphabet='[]{}":,gpu 01e', max_size=200))
@example("[" * 10**6)
@example("[1," * 300_000)
@example('{"card0": ' * 5000)
def test_any_gpu_tool(text: str) -> None:
    for read in (amd.gpus, amd.uses):
        with in_time(len(text)):
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
