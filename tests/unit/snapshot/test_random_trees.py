"""Random trees with random edits arrive unchanged, and git gives the same answers about them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import forget_intended, under, write

EXAMPLES = os.environ.get("EXAMPLES")
"""How many new examples to try; without it, a few that are always the same."""

SETTINGS = settings(
    max_examples=int(EXAMPLES or 25),
    deadline=None,
    derandomize=EXAMPLES is None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

NAME = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"-x", b"A", b".hidden", b"sp ace"]),
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda name: name not in (b".", b"..") and not name.lower().startswith((b".git", b"git~"))),
)
PATH = st.lists(NAME, min_size=1, max_size=3).map(lambda parts: os.fsdecode(b"/".join(parts)))
CONTENT = st.one_of(st.binary(max_size=60), st.sampled_from([b"one\r\ntwo\n", b"\0\1\2", b"x\n" * 3000]))
KIND = st.sampled_from(["file", "file", "file", "program", "link", "folder"])
OF_FILES = ("write", "remove", "move", "mode", "close", "umask")
OF_GIT = ("commit", "stage", "unstage", "forget", "intend", "assume")
EDIT = st.sampled_from(["write", *OF_FILES, *OF_GIT])
FILE = st.tuples(PATH, KIND, CONTENT)
MODES = (0o644, 0o755, 0o600, 0o444, 0o555, 0o640, 0o664, 0o777, 0o400, 0o711)
FOLDERS = (0o755, 0o700, 0o2775, 0o1777, 0o555, 0o500)


def put(root: Path, path: str, kind: str, content: bytes) -> None:
    """Create the file, unless something of another kind is in its place."""
    target = root / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not target.is_symlink():
            return
        target.unlink(missing_ok=True)
        if kind == "folder":
            target.mkdir()
        elif kind == "link":
            target.symlink_to(os.fsdecode(content.replace(b"\0", b"_")[:200]) or "nowhere")
        else:
            write(target, content, 0o755 if kind == "program" else 0o644)
    except (FileExistsError, NotADirectoryError):
        return


def edit(root: Path, what: str, file: tuple[str, str, bytes], at: int) -> None:
    """Do one thing that people do to a working tree."""
    found = manifest(root)
    there = sorted(path for path, about in found.items() if about[0] != "folder")
    folders = sorted(path for path, about in found.items() if about[0] == "folder")
    path = os.fsdecode(there[at % len(there)]) if there else file[0]
    actions: dict[str, Callable[[], object]] = {
        "write": lambda: put(root, *file),
        "remove": lambda: (root / path).unlink(missing_ok=True),
        "mode": lambda: (root / path).is_symlink() or (root / path).chmod(MODES[at % len(MODES)]),
        "close": lambda: (root / os.fsdecode(folders[at % len(folders)])).chmod(FOLDERS[at % len(FOLDERS)]),
        "umask": lambda: under(0o077 if at % 2 else 0o002, lambda root: root, root),
        "stage": lambda: git(root, "add", "--", f":(literal){path}", ok=False),
        "unstage": lambda: git(root, "reset", "-q", "--", f":(literal){path}", ok=False),
        "forget": lambda: git(root, "rm", "-q", "--cached", "--", f":(literal){path}", ok=False),
        "intend": lambda: git(root, "add", "-N", "--", f":(literal){path}", ok=False),
        "assume": lambda: git(root, "update-index", "--assume-unchanged", "--", path, ok=False),
        "move": lambda: git(root, "mv", "-k", "--", path, "moved", ok=False),
        "commit": lambda: git(root, "commit", "-qam", "more", ok=False),
    }
    actions[what]()


@SETTINGS
@given(
    files=st.lists(FILE, max_size=8),
    edits=st.lists(st.tuples(EDIT, FILE, st.integers(0, 20)), max_size=8),
    committed=st.booleans(),
)
def test_what_arrives(
    files: list[tuple[str, str, bytes]], edits: list[tuple[str, tuple[str, str, bytes], int]], committed: bool
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="dstack-random-"))
    try:
        root = folder / "project"
        write(root / ".dstack/workflows.yaml")
        git(root, "init", "-q", "-b", "main")
        for file in files:
            put(root, *file)
        if committed:
            git(root, "add", "-A")
            git(root, "commit", "-qm", "all", "--allow-empty")
        for what, file, at in edits:
            edit(root, what, file, at)

        road = Road(folder / "road")
        tree = road.launch(road.submit(root))

        assert manifest(tree) == manifest(root)
        forget_intended(root)
        for question in (("status", "--porcelain", "-z"), ("diff", "--binary"), ("diff", "--cached", "--binary")):
            assert road.in_job(tree, *question, ok=False) == git(root, *question, ok=False), question
    finally:
        shutil.rmtree(folder)
