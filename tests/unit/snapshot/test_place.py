"""Which folder and which history belong to a repository: a download can't have others sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.errors import UsageError
from dstack.snapshot.take import take
from tests.unit.snapshot.shipping import git
from tests.unit.snapshot.trees import commit, start, write


def project(root: Path) -> Path:
    start(root)
    commit(root)
    return root


def sent(folder: Path) -> str:
    """Take a snapshot of the folder, and return the path of its project."""
    with take(folder) as taken:
        return taken.snapshot.project


def test_a_download_in_another_repository_names_that_as_its_working_tree(tmp_path: Path) -> None:
    private = project(tmp_path / "private")
    download = project(private / "download")
    git(download, "config", "core.worktree", str(private))

    with pytest.raises(UsageError, match=r"makes .*/private its working tree, and dstack sends only its own folder"):
        sent(download)


def test_a_download_names_the_folder_above_it(tmp_path: Path) -> None:
    write(tmp_path / ".ssh/id_rsa", "secret")
    download = project(tmp_path / "download")
    git(download, "config", "core.worktree", "../..")

    with pytest.raises(UsageError, match="its working tree, and dstack sends only its own folder"):
        sent(download)


def test_a_download_names_the_history_of_another_repository(tmp_path: Path) -> None:
    project(tmp_path / "private")
    write(tmp_path / "download/.git", "gitdir: ../private/.git\n")
    write(tmp_path / "download/train.py", "print()\n")

    with pytest.raises(UsageError, match=r"makes the repository of .*/private that of .*/download, too"):
        sent(tmp_path / "download")


@pytest.mark.parametrize("bare", ["", "true", "yes"])
def test_a_download_names_a_bare_repository(tmp_path: Path, bare: str) -> None:
    git(project(tmp_path / "origin"), "clone", "--quiet", "--bare", ".", str(tmp_path / "private.git"))
    git(tmp_path / "private.git", "config", *(["core.bare", bare] if bare else ["--unset", "core.bare"]))
    write(tmp_path / "download/.git", "gitdir: ../private.git\n")
    write(tmp_path / "download/train.py", "print()\n")

    with pytest.raises(UsageError, match=r"makes the repository of .*/private\.git that of|is in a bare repository"):
        sent(tmp_path / "download")


def test_a_download_names_another_working_tree(tmp_path: Path) -> None:
    root = project(tmp_path / "root")
    git(root, "worktree", "add", "--quiet", str(tmp_path / "private"))
    write(tmp_path / "download/.git", (tmp_path / "private/.git").read_text())
    write(tmp_path / "download/train.py", "print()\n")

    with pytest.raises(UsageError, match=r"makes the repository of .*/private that of .*/download, too") as refused:
        sent(tmp_path / "download")
    assert str(refused.value.hint).endswith(f"git -C {root} worktree add FOLDER")

    # One that was only moved is its own
    (tmp_path / "private").rename(tmp_path / "moved")
    assert sent(tmp_path / "moved") == ""


def test_what_git_itself_makes_is_sent(tmp_path: Path) -> None:
    root, library = project(tmp_path / "root"), project(tmp_path / "library")
    git(root, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
    git(
        tmp_path,
        "clone",
        "--quiet",
        "--separate-git-dir",
        str(tmp_path / "aside"),
        str(library),
        str(tmp_path / "apart"),
    )
    git(library, "config", "core.worktree", "..")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/.git").symlink_to(library / ".git")
    write(tmp_path / "linked/train.py", "print()\n")

    for name in ("root", "tree", "root/sub", "apart", "library"):
        assert sent(tmp_path / name) == ""
    git(library, "config", "--unset", "core.worktree")
    assert sent(tmp_path / "linked") == ""
