"""Every host script: golden copies, and whether shells and shellcheck accept it.

After a change of a template: UPDATE_GOLDEN=1 pytest tests/unit/commands/test_scripts.py, and read the diff.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from dstack.commands.artifacts.collect import fetch, listing
from dstack.commands.artifacts.fetch_dependencies import gather
from dstack.commands.artifacts.retain import free, keep, reuse
from dstack.commands.artifacts.sync import sync
from dstack.commands.artifacts.upload import abandon, reach, sums, upload
from dstack.commands.job.enter import connect, enter, leave
from dstack.commands.job.launch import launch
from dstack.commands.job.observe import follow, observe, read_log
from dstack.commands.job.receive_code import spare
from dstack.commands.job.stop import discard, stop, warn
from dstack.commands.machine.authorize import authorize
from dstack.commands.machine.cache_folders import caches, drop
from dstack.commands.machine.orphans import prune
from dstack.commands.machine.probe import probe
from dstack.commands.machine.pull import Login, pull
from dstack.commands.machine.sample import sample
from dstack.commands.machine.take_stock import still_owned, take_stock
from dstack.commands.machine.uninstall import revoke, running, uninstall
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import ContainerCommand, Order
from dstack.model.job.manifest import File, Folder
from dstack.model.job.pieces import Piece
from dstack.model.paths import HostLayout
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.mounts import Mount
from dstack.render import text

GOLDEN = Path(__file__).parent.parent.parent / "golden"
LOGIN = Login("ann", "it's secret")
CONTEXT = HostContext(HostLayout(root="~/.dstack-host", machine="0123456789abcdef" * 2, server="5e12"), "docker")
OWNED = replace(CONTEXT, owner="i1 2 lab:/home/it's")
ELSEWHERE = HostContext(HostLayout(root="/data/d's", machine="", server="5e12"), "sudo -n podman")

PLAIN = Order(
    job="j1",
    attempt="j1",
    image="busybox",
    snapshot=Snapshot(repo="r", tree="7" * 40, git=False),
    script="echo hello\n",
    environment={"NAME": "it's", "GONE": None},
)
CODE = Snapshot(
    repo="r",
    tree="7" * 64,
    index="9" * 64,
    commit="8" * 64,
    depth=0,
    branch="feature/it's",
    object_format="sha256",
    project="sub dir/it's",
)
FULL = Order(
    job="j2",
    attempt="j2-3",
    image="registry:5000/a/b@sha256:" + "c" * 64,
    snapshot=CODE,
    user="image",
    gpus=(0, 3),
    cpu=1.5,
    memory=1 << 30,
    shm=1 << 20,
    script="python train.py 'a b'\n",
    environment={"LINES": "a\nb"},
    caches=("/root/.cache/pip", "/it's"),
    artifacts=True,
    folders=(Folder("out", 0o755), Folder("out/it's", 0o2770), Folder("out/it's/closed", 0)),
)
MOUNTS = (Mount("/data/it's", "/in", False), Mount("/data/b", "/out dir"))

FILE = File("a", 1, 0o644, "0" * 64)
PIECE = Piece("a", 0, 1, None, "http://s3/a", (("Content-MD5", "x"),))

SCRIPTS = {
    "abandon": abandon(CONTEXT, "j1").script,
    "authorize": authorize("ssh-ed25519 AAAA", "5e12").script,
    "caches": caches(CONTEXT).script,
    "caches-drop": drop(CONTEXT, ["caches/r/0", "caches/r/1"]).script,
    "spare": spare(CONTEXT, Snapshot(repo="r", tree="7" * 40)).script,
    "spare-modes": spare(CONTEXT, Snapshot(repo="r", tree="7" * 40, umask="077", modes="e" * 40)).script,
    "connect": connect(CONTEXT, "j1", 8888, "e1").script,
    "enter": enter(CONTEXT, "j1", ContainerCommand(id="e1", environment={"NAME": "it's"})).script,
    "enter-terminal": enter(ELSEWHERE, "j1", ContainerCommand(id="e1", command=("vi", "it's"), term="xterm")).script,
    "leave": leave(CONTEXT, "j1", "e1").script,
    "discard": discard(CONTEXT, "j1", "busybox").script,
    "entry": text("job/entry", project=""),
    "entry-project": text("job/entry", project="sub dir/it's"),
    "fetch": fetch(CONTEXT, "j1", "sub dir/it's", []).script,
    "follow": follow(CONTEXT, "j1", 0).script,
    "launch": launch(replace(CONTEXT, daemons=("7:100",)), PLAIN, follow=True).script,
    "launch-full": launch(CONTEXT, FULL, pack=b"a pack").script,
    "launch-gathered": launch(CONTEXT, structs.replace(FULL, artifacts=False, gathered=True)).script,
    "launch-amd": launch(CONTEXT, structs.replace(PLAIN, gpus=(0, 2), nodes=("renderD128", "renderD130"))).script,
    "launch-mounts": launch(CONTEXT, structs.replace(PLAIN, mounts=MOUNTS, allowed=("/data", "/it's"))).script,
    "launch-modes": launch(
        CONTEXT, structs.replace(FULL, snapshot=structs.replace(CODE, umask="002", modes="e" * 64))
    ).script,
    "launch-podman": launch(ELSEWHERE, FULL).script,
    "free": free(CONTEXT, ["j1", "j2-3"], 1 << 30).script,
    "keep": keep(CONTEXT, "j1", "sub dir/it's", "busybox", (Artifact(path="it's/out"), Artifact(path="a"))).script,
    "reuse": reuse(CONTEXT, "j3", ["j1", "j2-3"], []).script,
    "uninstall": uninstall(CONTEXT).script,
    "uninstall-shared": uninstall(CONTEXT, shared=True, keep_images=True, keep_key=True).script,
    "revoke": revoke(CONTEXT).script,
    "leftovers": prune(CONTEXT, ["r"], {"busybox": "sha256:1"}, dry_run=False).script,
    "leftovers-dry": prune(CONTEXT, [], {}, dry_run=True).script,
    "listing": listing(CONTEXT, "j1", "", "busybox", (Artifact(path="it's/out"), Artifact(path="it's"))).script,
    "listing-nothing": listing(ELSEWHERE, "j2-3", "sub dir", "busybox", ()).script,
    "observe": observe(CONTEXT, "j1").script,
    "probe": probe("~/.dstack-host", "docker").script,
    "probe-thorough": probe("~/.dstack-host", "podman", thorough=True).script,
    "probe-declared": probe("~/.dstack-host", "docker", thorough=True, declared=2).script,
    "pull": pull(CONTEXT, "busybox").script,
    "pull-login": pull(CONTEXT, "lab:5000/it's:1", LOGIN).script,
    "take-stock": take_stock(CONTEXT, "i1 2 lab:/home/ann/.dstack", 2, ["i1", "i0"]).script,
    "nothing-owned": still_owned(OWNED).script,
    "pull-podman": pull(HostContext(CONTEXT.layout, "podman"), "lab:5000/it's:1", LOGIN).script,
    "read-log": read_log(CONTEXT, "j1", 41).script,
    "running": running(CONTEXT).script,
    "sample": sample(CONTEXT).script,
    "gather": gather(CONTEXT, "j1", [FILE], {"a": "http://s3/a"}).script,
    "reach": reach(CONTEXT, "http://s3/").script,
    "sums": sums(CONTEXT, "j1", "sub dir", [FILE]).script,
    "sync": sync(CONTEXT, "j1", "it's", "busybox", Artifact(path="it's/out"), 0, keep=False).script,
    "sync-again": sync(CONTEXT, "j1", "", "busybox", Artifact(path="out"), 1, keep=True).script,
    "upload": upload(CONTEXT, "j1", "sub dir", [PIECE]).script,
    "upload-work": text("artifacts/upload_work", at_once=8),
    "uploading": upload(CONTEXT, "j1").script,
    "stop": stop(CONTEXT, "j1", 30).script,
    "warn": warn(CONTEXT, "j1", "USR1").script,
    "stop-at-once": stop(CONTEXT, "j1", 0).script,
}

VARIANTS = {
    "launch-amd": "launch",
    "launch-mounts": "launch",
    "launch-gathered": "launch-full",
    "launch-modes": "launch-full",
    "launch-podman": "launch-full",
}
"""Scripts whose golden copy is what differs from another one."""

UNWANTED = {
    "SC1003": "sees quoted quotes as mistakes",
    "SC1091": "wants to read the file that is sourced",
    "SC2016": "sees text that is quoted on purpose as mistakes",
    "SC2030": "a name is set anew in the subshell that checks out",
    "SC2031": "the same",
    "SC2034": "the prelude sets what not every script uses",
    "SC2088": "the prelude replaces the tilde itself",
    "SC2317": "sees the line behind main as never reached",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_what_it_was(name: str) -> None:
    path = GOLDEN / golden(name)
    found = difference(VARIANTS[name], name) if name in VARIANTS else SCRIPTS[name]
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found)

    assert found == path.read_text(), "if this is meant: UPDATE_GOLDEN=1, and read the diff"


def golden(name: str) -> str:
    """Return the path of a golden copy."""
    return f"{name}.diff" if name in VARIANTS else f"{name}.sh"


def difference(before: str, after: str) -> str:
    """Return the output of `diff -U1` for two scripts."""
    old, new = (SCRIPTS[name].splitlines(keepends=True) for name in (before, after))
    return "".join(difflib.unified_diff(old, new, before, after, n=1))


def test_no_golden_copy_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.suffix != ".txt"} == {golden(name) for name in SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_is_content(name: str, tmp_path: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed; install it: apt-get install shellcheck")
    path = tmp_path / "script.sh"
    path.write_text(SCRIPTS[name])

    exclude = ",".join(UNWANTED)
    done = subprocess.run(
        ["shellcheck", "-s", "dash", "-e", exclude, path], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"], ["zsh", "--emulate", "sh"]])
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_shell_can_read_it(name: str, shell: list[str]) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed; install it: apt-get install {shell[0]}")

    done = subprocess.run([*shell, "-n"], input=SCRIPTS[name], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name in SCRIPTS if not name.startswith(("entry", "upload-work"))])
def test_it_is_one_function_that_the_last_line_calls(name: str) -> None:
    assert SCRIPTS[name].startswith("main() {\nset -eu\n")
    assert SCRIPTS[name].endswith("\n}\nmain\n")
