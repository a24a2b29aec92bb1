"""How mounts are read. test_problems.py has the errors."""

from __future__ import annotations

import pytest

from dstack.model.runner.mounts import Mount, allowed, folder, outermost, parse


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data:/data", Mount("/data", "/data")),
        ("//data/./set/:/in/:ro", Mount("/data/set", "/in", False)),
        ("/a b:/workflows:rw", Mount("/a b", "/workflows")),
        ("/:/host:ro", Mount("/", "/host", False)),
    ],
)
def test_what_is_read(text: str, mount: Mount) -> None:
    assert parse(text) == mount


@pytest.mark.parametrize(
    ("source", "folders", "answer"),
    [
        ("/data", ["/data"], True),
        ("/data/a", ["/x", "/data"], True),
        ("/database", ["/data"], False),
        ("/", ["/data"], False),
        ("/data", [], False),
    ],
)
def test_what_lies_in_an_allowed_folder(source: str, folders: list[str], answer: bool) -> None:
    assert allowed(source, folders) is answer


def test_a_folder_in_another_adds_nothing() -> None:
    assert outermost(["/data/a", "/x", "/data", "/database"]) == ("/x", "/data", "/database")


def test_an_owner_can_allow_any_folder_but_the_root() -> None:
    assert folder("/data//a/") == "/data/a"
    for bad in ("/", "//./", "data", "~/data", "/a/../b", "/a\\nb"):
        with pytest.raises(ValueError, match=r"can't be|is not absolute|contains"):
            folder(bad)
