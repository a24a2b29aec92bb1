"""Working trees as people have them. Each builder makes one, and its names say which paths are not sent."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from tests.images import PYTHON
from tests.unit.snapshot.shipping import git

Builder = Callable[[Path], Path]
"""Makes a working tree in an empty folder and returns the folder that holds `.dstack`. Paths that must not be sent have
`ignored` in their names."""

CASES: dict[str, Builder] = {}


def case(builder: Builder) -> Builder:
    CASES[builder.__name__] = builder
    return builder


def write(path: Path, content: bytes | str = b"content\n", mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def commit(root: Path, message: str = "all") -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", message, "--allow-empty")


def define(root: Path, more: str = "") -> None:
    """Write the project's file: a workflow that runs the program in the variable PROGRAM."""
    text = f"workflows:\n  - name: job\n    image: {PYTHON}\n    commands: ['exec python3 -c \"$PROGRAM\" /workflow']\n"
    write(root / ".dstack/workflows.yaml", text + more)


def forget_intended(root: Path) -> None:
    """Make untracked what was added with `git add -N`, as it is in a job."""
    listed = git(root, "ls-files", "--debug", "-z")
    for path, flags in re.findall(rb"([^\0]+)\0(?:  .*\n){4}  size: \d+\tflags: ([0-9a-f]+)\n", listed):
        if int(flags, 16) & 1 << 29:
            git(root, "update-index", "--force-remove", "--", path)


def start(root: Path, *options: str) -> Path:
    """Make a repository with two commits and an ignored file."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main", *options)
    write(root / "old.py", "old\n")
    commit(root, "first")
    define(root)
    write(root / ".gitignore", "*ignored*\n")
    write(root / "train.py", "".join(f"line {n}\n" for n in range(300)))
    write(root / "lib/a.py", "a\n")
    write(root / "lib/b.py", "b\n")
    write(root / "run.sh", "#!/bin/sh\n", 0o755)
    write(root / "ignored.bin", b"\0" * 100)
    commit(root, "second")
    return root


@case
def clean(root: Path) -> Path:
    return start(root)


@case
def edited_in_every_way(root: Path) -> Path:
    start(root)
    write(root / "train.py", "changed\n")
    write(root / "staged.py", "staged\n")
    git(root, "add", "staged.py")
    write(root / "staged.py", "and changed again\n")
    git(root, "rm", "-q", "lib/a.py")
    (root / "lib/b.py").unlink()
    git(root, "mv", "old.py", "new.py")
    write(root / "untracked/deep/file", "untracked\n")
    write(root / "untracked/ignored", "stays\n")
    (root / "run.sh").chmod(0o644)
    return root


@case
def modes_and_kinds(root: Path) -> Path:
    start(root)
    write(root / "tool", b"\x7fELF\0\xff", 0o755)
    write(root / "private", "x", 0o600)
    write(root / "private-tool", "x", 0o700)
    write(root / "empty", b"")
    write(root / "binary", bytes(range(256)) * 50)
    (root / "link").symlink_to("train.py")
    (root / "dangling").symlink_to("nowhere/at all")
    (root / "outside").symlink_to("/etc")
    (root / "to-folder").symlink_to("lib")
    commit(root)
    (root / "link").unlink()
    write(root / "link", "a file now\n")
    (root / "train.py").unlink()
    (root / "train.py").symlink_to("lib/b.py")
    os.mkfifo(root / "fifo-ignored")
    return root


@case
def file_mode_is_not_trusted_by_git(root: Path) -> Path:
    start(root)
    git(root, "config", "core.fileMode", "false")
    (root / "train.py").chmod(0o755)
    (root / "run.sh").chmod(0o644)
    return root


@case
def folders_and_files_swap(root: Path) -> Path:
    start(root)
    write(root / "was-file", "x")
    write(root / "was-folder/x", "x")
    write(root / "was-link-target/x", "x")
    commit(root)
    (root / "was-file").unlink()
    write(root / "was-file/now/folder", "y")
    (root / "was-folder/x").unlink()
    (root / "was-folder").rmdir()
    write(root / "was-folder", "y")
    (root / "was-link-target").rename(root / "moved")
    (root / "was-link-target").symlink_to("moved")
    return root


NAMES = (
    "with space",
    " leading and trailing ",
    "-leading-dash",
    "--output=x",
    "quote'single",
    'quote"double',
    "dollar$HOME`id`",
    "back\\slash",
    "new\nline",
    "tab\tand\rreturn",
    "ünïcödé",
    "名前",
    "*glob?[a]",
    "!bang",
    "#hash",
    "~tilde",
    "git~1",
    ".gitfoo",
    "a:b",
    "con.txt.",
)


@case
def names(root: Path) -> Path:
    start(root)
    for name in NAMES[:10]:
        write(root / name, name)
    write(root / os.fsdecode(b"latin-\xe9-\xff"), "bytes")
    commit(root)
    for name in NAMES[10:]:
        write(root / name, name)
    write(root / os.fsdecode(b"\x80\x81 untracked"), "bytes")
    for name in NAMES:
        write(root / f"folder {name}" / name, "deep")
    return root


@case
def line_ends_and_encodings(root: Path) -> Path:
    start(root)
    attributes = "*.txt text=auto\n*.crlf text eol=crlf\n*.id ident\n*.utf16 text working-tree-encoding=UTF-16LE\n"
    write(root / ".gitattributes", attributes)
    write(root / "mixed.txt", b"one\r\ntwo\nthree\r\n")
    write(root / "dos.crlf", b"one\r\ntwo\r\n")
    write(root / "version.id", b"$Id$ x\n")
    write(root / "wide.utf16", "wide\n".encode("utf-16-le"))
    commit(root)
    for name in ("version.id", "dos.crlf"):
        (root / name).unlink()
        git(root, "checkout", "--", name)
    write(root / "untracked.txt", b"a\r\nb\r\n")
    write(root / "unix.crlf", b"a\nb\n")
    return root


@case
def auto_crlf(root: Path) -> Path:
    start(root)
    git(root, "config", "core.autocrlf", "true")
    write(root / "dos", b"a\r\nb\r\n")
    commit(root)
    (root / "train.py").unlink()
    git(root, "checkout", "--", "train.py")
    assert b"\r\n" in (root / "train.py").read_bytes()
    return root


@case
def lfs_like_filter(root: Path) -> Path:
    """The content on disk counts, not the filter's output. One file keeps its size under the filter."""
    start(root)
    git(root, "config", "filter.point.clean", "sha256sum")
    git(root, "config", "filter.point.smudge", "cat")
    git(root, "config", "filter.upper.clean", "tr a-z A-Z")
    write(root / ".gitattributes", "*.big filter=point\n*.same filter=upper\n")
    write(root / "model.big", b"weights" * 1000)
    write(root / "text.same", "same size\n")
    commit(root)
    return root


@case
def lfs(root: Path) -> Path:
    """Files that are downloaded, changed and staged, still a pointer, and new."""
    origin = start(root.parent / "origin")
    git(origin, "lfs", "install", "--local")
    git(origin, "lfs", "track", "*.big")
    for name in ("here", "changed", "far"):
        write(origin / f"{name}.big", name.encode() * 20_000)
    commit(origin)
    git(root.parent, "clone", "-q", f"file://{origin}", str(root))
    git(root, "lfs", "install", "--local")
    git(root, "lfs", "pull", "--include", "here.big,changed.big")
    assert (root / "here.big").read_bytes() == b"here" * 20_000
    assert (root / "far.big").read_bytes().startswith(b"version https://git-lfs.github.com/spec/v1\n")
    write(root / "changed.big", b"other" * 20_000)
    write(root / "staged.big", b"staged" * 20_000)
    git(root, "add", "changed.big", "staged.big")
    write(root / "new.big", b"new" * 20_000)
    return root


@case
def attributes_gone_since(root: Path) -> Path:
    start(root)
    git(root, "config", "filter.point.clean", "sha256sum")
    write(root / ".gitattributes", "*.big filter=point\n")
    write(root / "model.big", b"weights" * 1000)
    commit(root)
    (root / ".gitattributes").unlink()
    return root


@case
def flagged_in_the_index(root: Path) -> Path:
    start(root)
    git(root, "update-index", "--assume-unchanged", "train.py")
    git(root, "update-index", "--skip-worktree", "lib/a.py", "lib/b.py")
    write(root / "train.py", "changed behind the flag\n")
    write(root / "lib/a.py", "changed too\n")
    (root / "lib/b.py").unlink()
    write(root / "later.py", "intended\n")
    (root / "later-link").symlink_to("later.py")
    write(root / "assumed.py", "intended, and assumed to be unchanged\n")
    git(root, "add", "-N", "later.py", "later-link", "assumed.py")
    git(root, "update-index", "--assume-unchanged", "assumed.py")
    return root


@case
def sparse(root: Path) -> Path:
    start(root)
    git(root, "sparse-checkout", "set", "--cone", "--sparse-index", ".dstack")
    assert not (root / "lib").exists()
    write(root / "new.py")
    return root


@case
def split_index(root: Path) -> Path:
    start(root)
    git(root, "update-index", "--split-index", "--index-version", "4")
    write(root / "later.py")
    git(root, "add", "later.py")
    return root


@case
def same_size_at_the_same_time(root: Path) -> Path:
    """An edit that stat can't see: same size, and the modification time restored."""
    start(root)
    before = (root / "lib/a.py").stat()
    git(root, "update-index", "-q", "--refresh")
    (root / "lib/a.py").write_bytes(b"z\n")
    os.utime(root / "lib/a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    return root


@case
def detached(root: Path) -> Path:
    start(root)
    git(root, "checkout", "-q", "--detach", "HEAD~1")
    (root / "ignored.bin").unlink()
    define(root)
    return root


@case
def no_commit(root: Path) -> Path:
    root.mkdir()
    git(root, "init", "-q", "-b", "fresh/start")
    define(root)
    write(root / "a.py")
    git(root, "add", "a.py")
    write(root / "b.py")
    return root


@case
def no_git(root: Path) -> Path:
    define(root)
    write(root / ".gitignore", "*ignored*\n")
    write(root / "ignored/file")
    write(root / "src/a b.py", "x", 0o755)
    write(root / "src/.gitignore", "more\n")
    (root / "src/link").symlink_to("a b.py")
    return root


@case
def subfolder(root: Path) -> Path:
    start(root)
    define(root / "services/one")
    write(root / "services/two/x")
    return root / "services/one"


@case
def linked_worktree(root: Path) -> Path:
    start(root.parent / "main-one")
    git(root.parent / "main-one", "worktree", "add", "-q", "-b", "side", str(root))
    write(root / "train.py", "in the worktree\n")
    return root


@case
def shallow_clone(root: Path) -> Path:
    start(root.parent / "origin")
    git(root.parent, "clone", "-q", "--depth", "1", f"file://{root.parent}/origin", str(root))
    write(root / "train.py", "in the clone\n")
    return root


@case
def partial_and_sparse_clone(root: Path) -> Path:
    """Only the remote has the blobs outside the sparse folder."""
    return partial(root, "blob:none")


@case
def clone_without_trees(root: Path) -> Path:
    return partial(root, "tree:0")


@case
def sparse_index_without_trees(root: Path) -> Path:
    """git would fetch by itself to list the index, and to read the rules of folders that are left out."""
    partial(root, "tree:0", "--sparse-index")
    write(root / "lib/beside.py", "in a folder that is left out\n")
    return root


def partial(root: Path, left_out: str, *options: str) -> Path:
    origin = start(root.parent / "origin")
    write(origin / "lib/.gitattributes", "*.py filter=none\n")
    write(origin / "lib/.gitignore", "nothing\n")
    write(origin / "lib/deep/far.py", "far\n")
    commit(origin)
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(root.parent, "clone", "-q", f"--filter={left_out}", "--no-checkout", f"file://{origin}", str(root))
    git(root, "sparse-checkout", "set", "--cone", *options, ".dstack")
    git(root, "checkout", "-q", "main")
    lacking = git(root, "rev-list", "--objects", "--missing=print", "--no-walk", "HEAD")
    assert b"\n?" in lacking
    define(root, "# edited\n")
    return root


@case
def clone_with_alternates(root: Path) -> Path:
    start(root.parent / 'ori"gin: x')
    git(root.parent, "clone", "-q", "--shared", str(root.parent / 'ori"gin: x'), str(root))
    write(root / "new.py", "in the clone\n")
    return root


@case
def merge_under_way(root: Path) -> Path:
    start(root)
    git(root, "checkout", "-q", "-b", "other")
    write(root / "train.py", "theirs\n")
    commit(root)
    git(root, "checkout", "-q", "main")
    write(root / "train.py", "ours\n")
    commit(root)
    git(root, "merge", "other", ok=False)
    assert b"<<<<<<<" in (root / "train.py").read_bytes()
    return root


@case
def intended_beside_unmerged(root: Path) -> Path:
    """With an empty file, and one that the commit has."""
    merge_under_way(root)
    write(root / "later.py", "intended\n")
    write(root / "empty.py", "")
    git(root, "rm", "-q", "--cached", "lib/a.py")
    git(root, "add", "-N", "later.py", "empty.py", "lib/a.py")
    git(root, "update-index", "--assume-unchanged", "later.py")
    return root


@case
def rebase_under_way(root: Path) -> Path:
    merge_under_way(root)
    git(root, "merge", "--abort")
    git(root, "rebase", "other", ok=False)
    return root


@case
def submodules_and_nested(root: Path) -> Path:
    start(root.parent / "library")
    start(root)
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(root.parent / "library"), "sub")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(root.parent / "library"), "gone")
    commit(root)
    git(root, "submodule", "--quiet", "deinit", "gone")
    write(root / "sub/train.py", "dirty in the submodule\n")
    write(root / "sub/untracked.py", "new there\n")
    start(root / "vendor/nested")
    write(root / "vendor/nested/more.py", "more\n")
    (root / "empty-nested").mkdir()
    git(root / "empty-nested", "init", "-q")
    write(root / "empty-nested/x.py", "x\n")
    return root


@case
def sha256(root: Path) -> Path:
    start(root, "--object-format=sha256")
    write(root / "train.py", "changed\n")
    return root


@case
def replaced_objects(root: Path) -> Path:
    """What `git replace` shows in place of an object is not what is on disk."""
    start(root)
    write(root / "other.py", "other\n")
    commit(root)
    git(root, "replace", "HEAD:old.py", "HEAD:other.py")
    return root


@case
def packed_and_collected(root: Path) -> Path:
    start(root)
    git(root, "gc", "-q", "--prune=now")
    with (root / "train.py").open("a") as file:
        file.write("one more line\n")
    return root


@case
def many_branches_deep(root: Path) -> Path:
    start(root)
    git(root, "checkout", "-q", "-b", "feature/ünï/it's-$x")
    return root


@case
def ahead(root: Path) -> Path:
    """A clone with commits that its origin lacks."""
    origin = start(root.parent / "origin")
    git(root.parent, "clone", "-q", str(origin), str(root))
    for number in range(2):
        write(root / "ours.py", f"{number}\n")
        commit(root, f"ours {number}")
    write(root / "train.py", "in the clone\n")
    return root


@case
def modes_of_every_kind(root: Path) -> Path:
    """Files and folders with permissions that a umask took away, or that somebody removed by hand."""
    start(root)
    for mode in (0o600, 0o640, 0o664, 0o400, 0o444, 0o555, 0o700, 0o755, 0o711, 0o666, 0o777, 0o604):
        write(root / f"file {mode:o}", f"{mode:o}", mode)
        write(root / f"folder {mode:o}" / "inside")
    commit(root)
    (root / "train.py").chmod(0o600)
    write(root / "-rf", "x", 0o600)
    write(root / "untracked/new\nline", "x", 0o440)
    write(root / os.fsdecode(b"untracked/\xff\xfe"), "x", 0o440)
    write(root / "closed/deep/file", "x", 0o400)
    for path, mode in (("folder 2775", 0o2775), ("folder 1777", 0o1777), ("closed/deep", 0o500), ("closed", 0o555)):
        (root / path).mkdir(exist_ok=True)
        (root / path).chmod(mode)
    for folder in root.glob("folder [0-7][0-7][0-7]"):
        folder.chmod(int(folder.name[-3:], 8) | 0o500)
    root.chmod(0o700)
    return root


def under(umask: int, build: Builder, root: Path) -> Path:
    """Build a tree as a user with this umask would."""
    project = build(root)
    for path in (root, *root.rglob("*")):
        if not path.is_symlink() and ".git" not in path.relative_to(root).parts:
            path.chmod((0o777 if path.stat().st_mode & 0o100 else 0o666) & ~umask)
    return project


@case
def umask_077(root: Path) -> Path:
    under(0o077, edited_in_every_way, root)
    write(root / "for-all", "x", 0o644)
    return root


@case
def umask_002(root: Path) -> Path:
    return under(0o002, submodules_and_nested, root)


@case
def empty_folders(root: Path) -> Path:
    """Including folders that hold only ignored files. Ignored folders are not sent."""
    start(root)
    write(root / ".gitignore", "*ignored*\n/lib/*-back/\n!/lib/taken-back\n")
    for name in ("empty", "deep/er/est", "lib/in a tracked one", "lib/deep", "new/beside", "ignored/deep"):
        (root / name).mkdir(parents=True)
    for name in ("lib/taken-back", "lib/ignored-back", "-x", ":(glob)*", "new\nline", "ünï"):
        (root / name).mkdir()
    (root / os.fsdecode(b"\xff\xfe")).mkdir()
    write(root / "new/file")
    write(root / "scratch/x.tmp-ignored")
    write(root / "scratch/deep/x-ignored")
    write(root / "emptied/file")
    commit(root)
    (root / "emptied/file").unlink()
    start(root / "vendor/nested")
    (root / "vendor/nested/empty").mkdir()
    (root / "vendor/nested/empty").chmod(0o700)
    (root / "deep/er/est").chmod(0o500)
    (root / "deep/er").chmod(0o500)
    return root


@case
def only_empty_folders(root: Path) -> Path:
    """Without git."""
    define(root)
    write(root / ".gitignore", "*ignored*\n")
    (root / "data/ignored").mkdir(parents=True)
    (root / "data/raw").mkdir(mode=0o700)
    (root / "results").mkdir()
    return root


@case
def left_out_folders(root: Path) -> Path:
    start(root)
    write(root / ".gitignore", "nothing\n")
    write(root / ".dstackignore", "ignored-*/\n*-back/\n*.bin\nkept/*\n!/lib/taken-back/\n")
    for name in ("ignored-x/deep", "ignored-y", "lib/taken-back", "plain", "kept/ignored", "lib/ignored-z/q"):
        (root / name).mkdir(parents=True)
    write(root / "weights/ignored.bin")
    write(root / "weights/more/also-ignored.bin")
    commit(root)
    return root
