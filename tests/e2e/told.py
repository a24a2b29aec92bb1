"""Describes the working tree in its argument as JSON. Runs outside and inside containers, on the standard library only.

`files`: type, mode, size and sha256 (of a link: its target; of a folder: nothing) of all but git's own. `git`: what git
answers to the questions, with its exit status, in each repository that is there. Bytes are Latin-1.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys

QUESTIONS = (
    ("rev-parse", "HEAD"),
    ("rev-parse", "--abbrev-ref", "HEAD"),
    ("log", "-1"),
    ("status", "--porcelain=2", "-z"),
    ("diff", "--binary"),
    ("diff", "--cached", "--binary"),
    ("diff", "--submodule=diff"),
    ("ls-files", "-s", "-z"),
)


def manifest(root: bytes) -> dict[str, list[object]]:
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != b".git"]
        found[os.path.relpath(folder, root).decode("latin-1")] = describe(folder)
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            path = os.path.join(folder, name)
            if name != b".git":
                found[os.path.relpath(path, root).decode("latin-1")] = describe(path)
    return found


def describe(path: bytes) -> list[object]:
    about = os.lstat(path)
    if stat.S_ISLNK(about.st_mode):
        return ["link", 0, about.st_size, os.readlink(path).decode("latin-1")]
    if stat.S_ISDIR(about.st_mode):
        return ["folder", stat.S_IMODE(about.st_mode), 0, ""]
    if not stat.S_ISREG(about.st_mode):
        return ["special", 0, 0, ""]
    with open(path, "rb") as file:
        content = file.read()
    return ["file", stat.S_IMODE(about.st_mode), about.st_size, hashlib.sha256(content).hexdigest()]


def repositories(root: bytes) -> list[bytes]:
    """Return the root, even if it is not a repository, and the nested repositories."""
    return [root, *sorted(at for at, folders, files in os.walk(root) if at != root and b".git" in [*folders, *files])]


def answer(root: bytes, question: tuple[str, ...]) -> list[object]:
    done = subprocess.run(["git", *question], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return [done.returncode, done.stdout.decode("latin-1")]


place = os.fsencode(sys.argv[1])
answers = {
    " ".join([os.path.relpath(at, place).decode("latin-1"), *question]): answer(at, question)
    for at in repositories(place)
    for question in QUESTIONS
}
print(json.dumps({"files": manifest(place), "git": answers}))
