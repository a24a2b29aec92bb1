"""Which artifacts fit into one folder."""

from __future__ import annotations

from msgspec.structs import replace

from dstack.model.job.manifest import Folder, Manifest, conflicts, decode, encode, folders_of, problem
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


def with_folders(made: Manifest, **modes: int) -> Manifest:
    return replace(made, folders=tuple(Folder(path.replace("__", "/"), mode) for path, mode in modes.items()))


def test_a_folder_of_one_job_where_another_has_a_file() -> None:
    one = with_folders(manifest([], workflow="one"), m__empty=0o755)
    same = with_folders(manifest([file("m/a", b"1")], workflow="same"), m=0o700, m__empty=0o500)
    other = manifest([file("m/empty", b"")], workflow="other")
    above = manifest([link("m", "a")], workflow="above")

    assert conflicts([one, same]) is None
    assert conflicts([one, other]) == "'other' produces the file 'm/empty', and 'one' a folder with that name"
    assert conflicts([above, one]) == "'above' produces the file 'm', and 'one' a folder with that name"


def test_the_folders_of_several_jobs_in_one_tree() -> None:
    retried = with_folders(manifest([file("m/b", b"now a file")]), m=0o700)
    before = with_folders(manifest([]), m=0o755, m__a=0o555, m__b=0o755, m__b__c=0o755)

    assert folders_of([retried, before]) == (Folder("m", 0o700), Folder("m/a", 0o555))


def test_folders_are_written_and_read_and_an_old_list_has_none() -> None:
    odd = with_folders(manifest([file("m/a", b"1")]), **{"m": 0o2755, "m__\udcff\n": 0})
    old = (
        b'{"job": "j1", "run": "run-1", "workflow": "train", "status": "done", "attempt": 1, "exit_code": null,'
        b' "files": [\n{"path": "m/a", "size": 1, "mode": 420, "sha256": "00"}\n]}\n'
    )

    assert decode(encode(odd)) == odd
    assert decode(old).folders == ()
    assert [each.path for each in decode(old).files] == ["m/a"]


def test_folders_that_no_job_can_have_made() -> None:
    files = [file("m/a", b"1"), link("m/l", "a")]

    assert problem(files, [Folder("m", 0o755), Folder("m/b", 0)]) is None
    assert problem(files, [Folder("../m", 0o755)]) == "'../m' is outside the project's folder"
    assert problem(files, [Folder("m/l/x", 0o755)]) == "'m/l' is both a file and a folder"
    assert problem(files, [Folder("m/a", 0o755)]) == "'m/a' is both a file and a folder"
