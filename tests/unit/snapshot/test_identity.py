from __future__ import annotations

from pathlib import Path

import pytest

from dstack.snapshot.worktree import clean_url, repo_id

CLEAN = {
    "https://user:secret@example.org/a/b.git": "https://example.org/a/b.git",
    "https://ghp_token@example.org/a/b": "https://example.org/a/b",
    "https://user:p@ss@example.org:8443/a": "https://example.org:8443/a",
    "https://example.org/a?access_token=x#y": "https://example.org/a",
    "ssh://git:secret@example.org:22/a": "ssh://git@example.org:22/a",
    "ssh://example.org/a": "ssh://example.org/a",
    "git@example.org:a/b.git": "git@example.org:a/b.git",
    "git:secret@example.org:a/b.git": "git@example.org:a/b.git",
    "/srv/git/a@b.git": "/srv/git/a@b.git",
    "../a": "../a",
    "file:///srv/git/a": "file:///srv/git/a",
}


@pytest.mark.parametrize(("url", "clean"), CLEAN.items())
def test_credentials_are_stripped(url: str, clean: str) -> None:
    assert clean_url(url) == clean


def test_all_who_work_on_a_repository_share_its_mirror() -> None:
    mine = repo_id("https://me:token@example.org/a/b.git", Path("/home/me/b"), machine="mine")
    theirs = repo_id("https://example.org/a/b/", Path("/srv/b"), machine="theirs")

    assert mine == theirs
    assert mine != repo_id("https://example.org/a/c", Path("/home/me/b"), machine="mine")


@pytest.mark.parametrize("url", [None, "/srv/git/a", "../a", "file:///srv/git/a"])
def test_what_lies_on_one_machine_is_that_machines_own(url: str | None) -> None:
    assert repo_id(url, Path("/a"), machine="one") != repo_id(url, Path("/a"), machine="two")


def test_objects_of_two_formats_never_meet() -> None:
    url = "https://example.org/a"
    assert repo_id(url, Path("/a"), "sha1") != repo_id(url, Path("/a"), "sha256")
