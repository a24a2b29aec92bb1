"""Which artifacts fit into one folder."""

from __future__ import annotations

from dstack.model.job.manifest import conflicts
from tests.unit.artifacts.made import file, link, manifest


def test_two_jobs_that_give_one_path_different_bytes() -> None:
    one = manifest([file("m/a", b"1"), file("m/b", b"2")], workflow="one")
    same = manifest([file("m/a", b"1", 0o600), file("m/c", b"3")], workflow="same")
    other = manifest([file("m/a", b"9")], workflow="other")
    folder = manifest([file("m", b"a file")], workflow="folder")
    linked = manifest([link("m/b", "a")], workflow="linked")

    assert conflicts([one, same]) is None
    assert conflicts([]) is None
    assert conflicts([one, other]) == "'one' and 'other' both produce 'm/a', with different content"
    assert conflicts([one, linked]) == "'one' and 'linked' both produce 'm/b', with different content"
    assert conflicts([one, folder]) == "'folder' produces the file 'm', and 'one' a folder with that name"
