"""The list of a job's artifacts, from every tree that a container may leave."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.commands.artifacts.collect import ArtifactListing, fetch, listing, made
from dstack.commands.command import Result
from dstack.errors import CommandError, HostError
from dstack.model.job import manifest
from dstack.model.job.manifest import File
from dstack.model.paths import HostLayout
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from tests.unit.commands.hosts import Folder, busybox, processes

SECRET = b"not the job's"


@pytest.fixture(params=["sh", "bash", "busybox"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    if request.param == "busybox":
        programs = busybox(tmp_path / "programs")
        yield Folder(tmp_path / "root", (f"{programs}/sh",), programs)
    else:
        yield Folder(tmp_path / "root", (request.param,))


def asked(host: Folder, *paths: str, project: str = "", optional: bool = False) -> ArtifactListing:
    artifacts = tuple(Artifact(path=path, optional=optional) for path in paths)
    return host.ask(listing(host.context, "j1", project, "image", artifacts))


def file(path: str, content: bytes, mode: int = 0o644) -> File:
    return File(path, len(content), mode, hashlib.sha256(content).hexdigest())


def put(tree: Path, path: str | bytes, content: bytes = b"x", mode: int = 0o644) -> Path:
    target = tree / os.fsdecode(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(mode)
    return target


def test_files_folders_modes_and_links(host: Folder) -> None:
    tree = host.job("j1")
    put(tree, "out/a", b"one")
    put(tree, "out/deep/er/b", b"", 0o755)
    put(tree, "model.bin", b"two", 0o600)
    put(tree, "other/not-asked-for")
    (tree / "out" / "latest").symlink_to("deep/er")
    (tree / "out" / "deep" / "up").symlink_to("../a")
    (tree / "out" / "gone").symlink_to("never-made")

    found = asked(host, "out", "model.bin")

    assert found.missing == found.refused == ()
    assert found.files == (
        file("model.bin", b"two", 0o600),
        file("out/a", b"one"),
        file("out/deep/er/b", b"", 0o755),
        File("out/deep/up", 0, 0o777, "", "../a"),
        File("out/gone", 0, 0o777, "", "never-made"),
        File("out/latest", 0, 0o777, "", "deep/er"),
    )


FOLDERS = {
    "out": 0o755,
    "out/closed": 0,
    "out/closed/in": 0o555,
    "out/empty": 0o700,
    "out/it's\nnew": 0o2770,
    "out/\n755 .": 0o711,
    "out/\n755 ./x": 0o1777,
}


@pytest.mark.parametrize("project", ["", "sub/dir"])
def test_every_folder_has_the_mode_that_the_job_gave_it(host: Folder, project: str) -> None:
    tree = host.job("j1") / project
    put(tree, "out/closed/in/a", b"one")
    put(tree, "beside/model")
    for path in FOLDERS:
        (tree / path).mkdir(parents=True, exist_ok=True)
    for path, mode in reversed(FOLDERS.items()):
        (tree / path).chmod(mode)

    found = [asked(host, "out", "beside/model", project=project) for _ in range(2)]

    assert found[0] == found[1]
    assert found[0].refused == ()
    assert {folder.path: folder.mode for folder in found[0].folders} == FOLDERS
    assert [file.path for file in found[0].files] == ["beside/model", "out/closed/in/a"]


ABSOLUTE = {
    "out/deep/top": ("/workflow/sub/out", ".."),
    "out/deep/model": ("/workflow/sub/out/model", "../model"),
    "out/latest": ("//workflow/./sub/out//deep/", "deep"),
    "out/chain": ("/workflow/sub/out/latest/model", "latest/model"),
    "out/detour": ("/workflow/sub/out/deep/../model", "model"),
    "out/gone": ("/workflow/sub/out/never-made", "never-made"),
}


def test_an_absolute_link_in_its_own_artifact_is_kept_as_a_relative_one(host: Folder) -> None:
    tree = host.job("j1") / "sub"
    put(tree, "out/model")
    (tree / "out/deep").mkdir()
    for path, (target, _) in ABSOLUTE.items():
        (tree / path).symlink_to(target)

    found = asked(host, "out", project="sub")

    assert found.refused == ()
    links = {file.path: file.link for file in found.files if file.link is not None}
    assert links == {path: target for path, (_, target) in ABSOLUTE.items()}


@pytest.mark.parametrize(
    "target",
    [
        "/workflow/sub",
        "/workflow/sub/outer",
        "/workflow/sub/beside/model",
        "/workflow/out/model",
        "/workflow/sub/out/../beside/model",
        "/workflow/sub/out/../../sub/out/model",
        "/workflow/sub/out/up/../model",
        "/workflow/sub/else/../out/model",
        "/workflow",
        "/",
        "/etc/passwd",
        "/workflow/sub/out/bad",
    ],
)
def test_an_absolute_link_that_may_leave_its_artifact_is_refused_by_name(tmp_path: Path, target: str) -> None:
    host = Folder(tmp_path / "root")
    tree = host.job("j1") / "sub"
    put(tree, "out/model")
    put(tree, "beside/model")
    (tree / "out/deep").mkdir()
    (tree / "out/up").symlink_to("deep")
    (tree / "out/bad").symlink_to(target)

    found = asked(host, "out", project="sub")

    assert found.refused == (f"'out/bad' is a link out of its artifact, to '{target}'",)
    assert [file.path for file in found.files] == ["out/model", "out/up"]


def test_below_the_project(host: Folder) -> None:
    put(host.job("j1"), "sub/dir/out/a", b"one")

    found = asked(host, "out/", project="sub/dir")

    assert found == ArtifactListing((file("out/a", b"one"),), (), (), folders=(manifest.Folder("out", 0o755),))


def test_an_empty_folder_is_produced_and_what_is_not_there_is_missing(host: Folder) -> None:
    (host.job("j1") / "empty").mkdir()

    found = asked(host, "empty", "nope", "no/folder/")

    assert found == ArtifactListing((), ("nope", "no/folder/"), (), folders=(manifest.Folder("empty", 0o755),))
    assert asked(host, "nope", optional=True) == ArtifactListing((), (), ())


def test_nested_artifacts_are_listed_once(host: Folder) -> None:
    put(host.job("j1"), "out/logs/a")

    found = asked(host, "out/logs", "out", "./out/logs/", "out/missing")

    assert [f.path for f in found.files] == ["out/logs/a"]
    assert found.missing == ("out/missing",)


def test_the_whole_folder_without_gits(host: Folder) -> None:
    tree = host.job("j1")
    put(tree, ".git/config")
    put(tree, "nested/.git/config")
    put(tree, "a")

    assert [f.path for f in asked(host, ".").files] == ["a", "nested/.git/config"]


NAMES = [
    b"with space",
    b" both ends ",
    b"-rf",
    b"--help",
    b"quote'double\"back\\slash",
    b"new\nline",
    b"\nfirst",
    b"last\n",
    b"cr\rlf\r\n",
    b"\\escaped\nname",
    b"tab\there",
    b"$(touch pwned) `id` ${HOME} ; &",
    b"*?[a]{b,c}",
    b"not utf-8 \xff\xfe\x81\x88",
    "ünïcödé 名前".encode(),
    b"{}",
    b"%s%n",
    b"x" * 255,
    b"81a4 1 .",
    b"nested/-n/\n/x y",
]


def test_names_survive(host: Folder) -> None:
    tree = host.job("j1")
    (tree / "links").mkdir()
    for number, name in enumerate(NAMES):
        put(tree, b"out/" + name, b"one%d" % number)
        put(tree, b"-dir/" + name, b"two%d" % number)
        os.symlink(name.replace(b"/", b"_"), tree / "links" / f"to{number}")
        os.symlink("gone", os.path.join(bytes(tree / "links"), name.replace(b"/", b"_")))

    found = asked(host, "out", "-dir", "links")

    texts = [name.decode(errors="surrogateescape") for name in NAMES]
    plain = [f for f in found.files if f.link is None]
    expected = [file(f"out/{text}", b"one%d" % number) for number, text in enumerate(texts)]
    expected += [file(f"-dir/{text}", b"two%d" % number) for number, text in enumerate(texts)]
    assert sorted(plain, key=lambda f: f.path) == sorted(expected, key=lambda f: f.path)
    links = {f"links/to{number}": text.replace("/", "_") for number, text in enumerate(texts)}
    links |= {"links/" + text.replace("/", "_"): "gone" for text in texts}
    assert {f.path: f.link for f in found.files if f.link is not None} == links
    assert host.result(fetch(host.context, "j1", made(""), plain)).stdout == b"".join(
        (b"one%d" if f.path.startswith("out") else b"two%d") % texts.index(f.path.partition("/")[2]) for f in plain
    )


def leaves_by_file(tree: Path, outside: Path) -> None:
    (tree / "out" / "bad").symlink_to(outside / "secret")


def leaves_relatively(tree: Path, outside: Path) -> None:
    (tree / "out" / "bad").symlink_to(os.path.relpath(outside / "secret", tree / "out"))


def leaves_the_artifact(tree: Path, outside: Path) -> None:
    put(tree, "beside")
    (tree / "out" / "bad").symlink_to("../beside")


def leaves_and_comes_back(tree: Path, outside: Path) -> None:
    (tree / "out" / "bad").symlink_to("../out/good")


def leaves_by_folder(tree: Path, outside: Path) -> None:
    (tree / "out" / "bad").symlink_to(outside)


def leaves_by_a_chain(tree: Path, outside: Path) -> None:
    (tree / "out" / "a" / "b").mkdir(parents=True)
    (tree / "out" / "up").symlink_to("a/b")
    (tree / "out" / "a" / "bad").symlink_to("b/../../../beside")


def leaves_through_a_link(tree: Path, outside: Path) -> None:
    (tree / "out" / "a" / "b").mkdir(parents=True)
    (tree / "out" / "a" / "b" / "here").symlink_to("../..")
    (tree / "out" / "bad").symlink_to("a/b/here/../beside")


def goes_in_circles(tree: Path, outside: Path) -> None:
    (tree / "out" / "bad").symlink_to("bad")


def is_a_fifo(tree: Path, outside: Path) -> None:
    os.mkfifo(tree / "out" / "bad")


def is_a_socket(tree: Path, outside: Path) -> None:
    here = os.getcwd()
    os.chdir(tree / "out")
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("bad")
    finally:
        os.chdir(here)


def is_a_device(tree: Path, outside: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(tree / "out" / "bad", stat.S_IFCHR | 0o666, os.makedev(1, 5))


def is_too_deep(tree: Path, outside: Path) -> None:
    here = os.getcwd()
    os.chdir(tree / "out")
    try:
        for name in ("bad", *["y" * 250] * 20):
            os.mkdir(name)
            os.chdir(name)
        Path("file").write_bytes(b"too deep for any name")
    finally:
        os.chdir(here)


HOSTILE: dict[Callable[[Path, Path], None], str] = {
    leaves_by_file: "out of its artifact, to",
    leaves_relatively: "out of its artifact, to",
    leaves_the_artifact: "out of its artifact, to '../beside'",
    leaves_and_comes_back: "out of its artifact, to",
    leaves_by_folder: "out of its artifact, to",
    leaves_by_a_chain: "'out/a/bad' is a link out of its artifact",
    leaves_through_a_link: "out of its artifact, to",
    goes_in_circles: "out of its artifact, to",
    is_a_fifo: "'out/bad' is a FIFO",
    is_a_socket: "'out/bad' is a socket",
    is_a_device: "'out/bad' is a device",
    is_too_deep: "too long: 'out/bad/yyy",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_hostile_entries_are_refused_by_name(host: Folder, tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    tree = host.job("j1")
    put(tree, "out/good", b"fine")
    make(tree, tmp_path / "outside")

    found = asked(host, "out")

    refused = [sentence for sentence in found.refused if "bad" in sentence]
    assert len(refused) == 1, found.refused
    assert HOSTILE[make] in refused[0]
    assert "bad" in refused[0]
    assert file("out/good", b"fine") in found.files
    assert not [f for f in found.files if "bad" in f.path or f.sha256 == hashlib.sha256(SECRET).hexdigest()]


@pytest.mark.parametrize("path", ["out", "out/", "out/secret", "out/../out"])
def test_an_artifact_that_is_a_link_or_behind_one(host: Folder, tmp_path: Path, path: str) -> None:
    (host.job("j1") / "out").symlink_to(tmp_path / "outside")

    found = asked(host, path)

    assert found.files == found.missing == ()
    assert [s for s in found.refused if "is a link or lies behind one" in s]


@pytest.mark.parametrize("make", [is_a_fifo, is_a_socket])
def test_an_artifact_that_is_no_file(host: Folder, tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    tree = host.job("j1")
    (tree / "out").mkdir()
    make(tree, tmp_path)

    assert asked(host, "out/bad") == ArtifactListing((), (), ("the artifact 'out/bad' is not a file or folder",))


def test_the_projects_folder_is_a_link(host: Folder, tmp_path: Path) -> None:
    tree = host.job("j1")
    (tmp_path / "outside" / "out").mkdir()
    (tmp_path / "outside" / "out" / "a").write_text("x")
    (tree / "sub").symlink_to(tmp_path / "outside")

    assert asked(host, "out", project="sub") == ArtifactListing(
        (), (), ("the project's folder 'sub' is a link or not a folder",)
    )
    assert asked(host, "out", project="gone") == ArtifactListing((), ("out",), ())


@pytest.mark.parametrize(
    "path", ["/etc", "..", "../x", "a/../../x", "", "a\0b", "manifest.json", ".git", ".git/config"]
)
def test_paths_that_no_artifact_may_have(host: Folder, path: str) -> None:
    put(host.job("j1"), "manifest.json", b"mine")

    found = asked(host, path)

    assert found.files == found.missing == ()
    assert len(found.refused) == 1


def test_the_name_of_the_stores_list_is_free_below(host: Folder) -> None:
    put(host.job("j1"), "out/manifest.json", b"mine")

    assert asked(host, "out").files == (file("out/manifest.json", b"mine"),)


def test_setuid_bits_are_dropped(host: Folder) -> None:
    put(host.job("j1"), "out/su", b"root", 0o6755)

    assert asked(host, "out").files == (file("out/su", b"root", 0o755),)


def test_a_job_that_is_gone(host: Folder) -> None:
    found = asked(host, "out")

    assert found == ArtifactListing((), (), ("the job's folder is gone from its machine",), gone=True)


def test_another_machine_is_an_error(tmp_path: Path) -> None:
    host = Folder(tmp_path)
    command = listing(host.context, "j1", "", "image", (Artifact(path="out"),))

    with pytest.raises(HostError, match="a different machine"):
        command.parse(Result(94, b"machine=00\n", b""))


def test_an_answer_that_is_cut_is_an_error(host: Folder) -> None:
    put(host.job("j1"), "out/a")
    command = listing(host.context, "j1", "", "image", (Artifact(path="out"),))
    whole = host.result(command)
    assert command.parse(whole).files

    for length in range(1, len(whole.stdout)):
        with pytest.raises(CommandError):
            command.parse(Result(0, whole.stdout[:-length], b""))


def test_nothing_is_left_behind(host: Folder) -> None:
    tree = host.job("j1")
    put(tree, "out/a", b"one")

    found = asked(host, "out")
    host.result(fetch(host.context, "j1", made(""), found.files))

    assert {path.name for path in tree.parent.iterdir()} == {"workflow", "made", "made.folders", "hashed"}


def test_fetching_a_file_that_is_gone_fails(host: Folder) -> None:
    host.job("j1")

    result = host.result(fetch(host.context, "j1", made(""), [file("out/a", b"one")]))

    assert result.exit_status != 0


def test_fetching_does_not_wait_for_the_end_of_stdin(tmp_path: Path) -> None:
    host = Folder(tmp_path)
    put(host.job("j1"), "out/a", b"one")
    command = fetch(host.context, "j1", "workflow", [file("out/a", b"one")])
    assert isinstance(command.stdin, bytes)
    read, write = os.pipe()
    os.write(write, command.stdin)
    with subprocess.Popen(["sh", "-c", command.script], stdin=read, stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=60)[0] == b"one"
    os.close(write)
    os.close(read)


def test_thousands_of_small_files(host: Folder) -> None:
    tree = host.job("j1")
    for number in range(5000):
        put(tree, f"out/{number % 50}/file with a longer name {number}", str(number).encode())

    found = asked(host, "out")
    result = host.result(fetch(host.context, "j1", made(""), found.files))

    assert len(found.files) == 5000
    assert hashlib.sha256(result.stdout).hexdigest() == content_of(tree, found.files)
    shutil.rmtree(tree)


def test_a_file_takes_no_process(tmp_path: Path) -> None:
    host = Folder(tmp_path)
    tree = host.job("j1")
    script = listing(host.context, "j1", "", "image", (Artifact(path="out"),)).script
    put(tree, "out/first")
    few = processes(script)

    for number in range(500):
        put(tree, f"out/{number}")

    assert processes(script) <= few + 10


SUM = "0" * 64


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ([("out/a", "81a4"), ("out/a", "link")], "it lists a path twice"),
        ([(".git/config", "81a4")], "'.git/config' is not in an artifact"),
        ([("output/a", "81a4")], "'output/a' is not in an artifact"),
        ([("out/a", "81a4"), ("out/a/b", "81a4")], "'out/a' is both a file and a folder"),
    ],
)
def test_a_list_that_no_honest_host_gives_is_refused_whole(listed: list[tuple[str, str]], why: str) -> None:
    with pytest.raises(CommandError, match=f"listing the artifacts failed .* can't be parsed: {why}"):
        answered(listed)


@pytest.mark.parametrize(("mode", "what"), [("41ed", "not a file"), ("0", "not a file"), ("1180", "a FIFO")])
def test_what_is_no_regular_file_is_not_stored(mode: str, what: str) -> None:
    found = answered([("out/a", mode)])

    assert (found.files, found.refused) == ((), (f"'out/a' is {what}",))


def answered(listed: list[tuple[str, str]]) -> ArtifactListing:
    """Return what is read of a host's answer that lists these paths and modes of 'out'."""
    files = [(path, mode) for path, mode in listed if mode != "link"]
    sections = {
        "names": "".join(f"./{path}\0" for path, _ in files),
        "stats": "".join(f"{mode} 5 ./{path}\n" for path, mode in files),
        "hashes": "".join(f"{SUM}  ./{path}\n" for path, _ in files),
        "links": "".join(f"./{path}\0b\0" for path, mode in listed if mode == "link"),
        **dict.fromkeys(("folders", "modes", "long", "trouble"), ""),
    }
    lists = "".join(f"{key}={len(text)}\n{text}" for key, text in sections.items())
    context = HostContext(HostLayout(root="/r", machine="m", server="s"))
    command = listing(context, "j1", "", "image", (Artifact(path="out"),))
    return command.parse(Result(0, f"path=present\n{lists}end=\n".encode(), b""))


def content_of(tree: Path, files: tuple[File, ...]) -> str:
    found = hashlib.sha256()
    for one in files:
        found.update((tree / one.path).read_bytes())
    return found.hexdigest()
