"""Links are judged as the kernel would follow them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.model.job.links import stays

NAMES = ("a", "b", "c")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
targets = st.lists(st.sampled_from((*NAMES, "..", ".", "")), min_size=1, max_size=6).map("/".join)


def free(top: Path, path: str) -> bool:
    """Whether neither the path nor a folder above it is a link."""
    return not any((top / path).is_symlink() for path in (path, *map(str, Path(path).parents)))


@settings(max_examples=400, deadline=None)
@given(st.lists(paths, max_size=4), st.dictionaries(paths, targets.filter(bool), min_size=1, max_size=4))
def test_what_stays_really_does(folders: list[str], wanted: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as made:
        top = Path(os.path.realpath(made)) / "top" / "artifact"
        top.mkdir(parents=True)
        links = {}
        for path, target in wanted.items():
            if free(top, path) and not (top / path).exists():
                (top / path).parent.mkdir(parents=True, exist_ok=True)
                (top / path).symlink_to(target)
                links[path] = target
        for folder in folders:
            if free(top, folder):
                (top / folder).mkdir(parents=True, exist_ok=True)

        for path in links:
            if stays(path, links):
                assert Path(os.path.realpath(top / path)).is_relative_to(top), (path, links)


def test_what_leaves_or_stays() -> None:
    def judged(target: str, top: str = ".", **others: str) -> bool:
        return stays("out/x", {"out/x": target, **{path.replace("__", "/"): to for path, to in others.items()}}, top)

    assert judged("a")
    assert judged("a/b/../c//./d", "out")
    assert judged("../other")
    assert judged(".", "out")
    assert not judged("../other", "out")
    assert not judged("../../other")
    assert not judged("/etc/passwd")
    assert not judged("y", "out", out__y="../..")
    assert not judged("y/../..", "out", out__y="a")
    assert not judged("y", "out", out__y="x")
