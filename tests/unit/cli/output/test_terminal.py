"""What a person at a terminal sees, and what Ctrl-C does there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.model.api.jobs import CacheView, StopRequest
from dstack.model.api.server import Problem
from dstack.model.job.status import Status
from tests.unit.cli.conftest import command
from tests.unit.cli.fake_server import State, job_view, run_view, runner_view
from tests.unit.cli.terminal import looks, type_into

Person = Callable[..., tuple[str, int]]
CTRL_C = "\x03"
MENU = "ontinue?"


@pytest.fixture
def person(environment: dict[str, str], server: str, project: Path) -> Person:
    """Types at `dstack ARGUMENTS`: `person(arguments, (shown, typed)...)`."""

    def run(arguments: str, *steps: tuple[str, str], columns: int = 80, **extra: str) -> tuple[str, int]:
        known = {**environment, "DSTACK_SERVER_URL": server, **extra}
        return type_into(command(*arguments.split()), steps, cwd=project, environment=known, columns=columns)

    return run


def test_ctrl_c_asks_and_stops(person: Person, state: State) -> None:
    state.held.clear()
    job = job_view("0123456789ab", "train", status=Status.STOPPED, exit_code=143)
    state.hold(run_view("brave-otter-7", [job], status=Status.STOPPED, exit_code=143), {"0123456789ab": b"one\n"})

    shown, code = person("run train", ("one\r\n", CTRL_C), (MENU, "s\n"))

    assert state.stops == [StopRequest(refs=("brave-otter-7",))]
    assert "brave-otter-7: stopping" in shown
    assert code == 143


def test_ctrl_c_and_continue_loses_nothing(person: Person, state: State) -> None:
    state.held.clear()
    state.logs["0123456789ab"] = b"".join(b"%d\n" % number for number in range(500))
    state.chunk = 100
    state.cuts = [3000]

    def release() -> str:
        state.held.set()
        return "c\n"

    shown, code = person("run train", ("499\r\n", CTRL_C), (MENU, release))

    assert re.findall(r"^(\d+)\r$", shown, re.MULTILINE) == [str(number) for number in range(500)]
    assert code == 0


@pytest.mark.parametrize("typed", ["d\n", CTRL_C, "what\nd\n"])
def test_ctrl_c_and_detach(person: Person, state: State, typed: str) -> None:
    state.held.clear()

    shown, code = person("run train", ("three", CTRL_C), (MENU, typed))

    assert "detached; brave-otter-7 keeps running" in shown
    assert (code, state.stops) == (130, [])


def test_a_status_line_while_it_waits_and_colours(person: Person, state: State) -> None:
    shown, code = person("run train")

    assert code == 0
    assert "\x1b[32mbrave-otter-7: done in 1m 12s\x1b[0m" in shown


def test_no_color(person: Person, state: State) -> None:
    state.runners["lab1"] = runner_view("lab1")

    for words in ("runs", "runners", "run train"):
        shown, _ = person(words, NO_COLOR="1")
        assert not re.search(r"\x1b\[\d*(;\d+)*[1-9]m", shown), shown


def test_tables_fit_eighty_columns(person: Person, state: State) -> None:
    state.runners["lab1"] = runner_view("lab1.example.org", state="unreachable", reason="no route to host")
    state.hold(run_view("a-very-long-name-for-a-run-that-somebody-gave-it", [job_view("ffffffffffff", "x" * 30)]))

    for words in ("runs", "runners", "jobs", "runs brave"):
        shown, code = person(words)
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
        assert code == 0
        assert max(len(line) for line in plain.splitlines()) <= 80, plain


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_one_row_for_each_thing_at_any_width(person: Person, state: State, columns: int) -> None:
    why = "train: pulling registry.example.org/team/trainer:2.4 failed: no such image: manifest unknown, " * 2
    job = job_view("ffffffffffff", "train", run="sad-owl-3", status=Status.FAILED, exit_code=125, reason=why)
    state.hold(run_view("sad-owl-3", [job], status=Status.FAILED, exit_code=125, reason=why))
    state.runners["lab1"] = runner_view("lab1.example.org", address=f"ada@{'x' * 80}")

    for words, rows in (("runs", 3), ("jobs", 3), ("runners", 2)):
        shown, code = person(words, columns=columns)
        assert code == 0
        assert shown.count("\n") == rows == len(looks(shown, columns)), shown
    widest = max(map(len, looks(person("runs", columns=columns)[0], columns)))
    assert widest == 199 if columns == 200 else widest < columns


TQDM = b"".join(b"\r%3d%%|%s| %d/4" % (25 * n, "█".encode() * n, n) for n in range(5)) + b"\n"


@pytest.mark.parametrize(("columns", "extra"), [(40, {}), (80, {"NO_COLOR": "1"}), (200, {})])
def test_bars_of_several_jobs(person: Person, state: State, columns: int, extra: dict[str, str]) -> None:
    jobs = [job_view("aaaaaaaaaaaa", "prep"), job_view("bbbbbbbbbbbb", "train")]
    logs = {
        "aaaaaaaaaaaa": TQDM + b"\x1b[31mred\n",
        "bbbbbbbbbbbb": b"\x1b[32m" + "学習中".encode() * 80 + b"\r" + TQDM,
    }
    state.hold(run_view("brave-otter-7", jobs), logs)
    state.chunk = 3

    shown, code = person("run train", columns=columns, **extra)

    lines = looks(shown, columns)
    assert code == 0
    assert [line for line in lines if "| " in line and "PLAN" not in line] == [
        "prep  | 100%|████| 4/4",
        "prep  | red",
        "train | 100%|████| 4/4",
    ], lines
    assert "prep: done in 1m 12s" in lines
    assert lines[-1] == "next: dstack logs brave-otter-7"
    assert ("\x1b[36mprep" in shown) == (not extra)


def test_the_bar_of_the_one_job_that_runs_has_no_label(person: Person, state: State) -> None:
    why = CacheView(True, "nothing changed since calm-ant-1")
    cached = job_view("aaaaaaaaaaaa", "prep", cached=True, cached_from="cccccccccccc", cache=why)
    state.hold(run_view("brave-otter-7", [cached, job_view("bbbbbbbbbbbb", "train")]), {"bbbbbbbbbbbb": TQDM})

    shown, _ = person("run train")

    lines = looks(shown)
    assert TQDM.decode().replace("\n", "\r\n") in shown
    assert "100%|████| 4/4" in lines
    assert lines[1:4] == [
        "WORKFLOW  PLAN    WHY",
        "prep      cached  nothing changed since calm-ant-1",
        "train     run     no earlier run of it",
    ]


@pytest.mark.parametrize("words", ["run train", "logs -f brave", "runs -w brave"])
def test_a_dumb_terminal_is_like_a_file(person: Person, state: State, words: str) -> None:
    jobs = [job_view("aaaaaaaaaaaa", "prep"), job_view("bbbbbbbbbbbb", "train")]
    state.hold(run_view("brave-otter-7", jobs), {"aaaaaaaaaaaa": TQDM, "bbbbbbbbbbbb": TQDM})

    shown, code = person(words, TERM="dumb")

    assert code == 0
    assert "\x1b" not in shown
    if "runs" not in words:
        lines = shown.split("\r\n")
        assert ("prep | 100%|████| 4/4" in lines, "train | 100%|████| 4/4" in lines) == (True, True)


def test_a_log_leaves_its_colours_and_no_hidden_cursor_behind(person: Person, state: State) -> None:
    state.logs["0123456789ab"] = b"\x1b[?25l\x1b[1;31mred without end"

    shown, _ = person("run train")
    logs, _ = person("logs brave")

    for line in ("train: done in 1m 12s", "brave-otter-7: done in 1m 12s"):
        assert re.search(rf"\x1b\[0m\r\n(\x1b\[\?25h)?\x1b\[32m{line}", shown), repr(shown)
    assert logs.endswith("red without end\x1b[0m\x1b[?25h")


def test_a_person_vouches_for_a_host_key(person: Person, state: State) -> None:
    unknown = Problem(kind="host-key", message="nobody knows the key of lab1", fingerprint="SHA256:abc")
    state.problems["POST /runners"] = [unknown]
    shown, code = person("runners add lab1", ("SHA256:abc its host key? [y/N]", "y\n"))
    assert (code, state.added[0].fingerprint) == (0, "SHA256:abc")

    state.problems["POST /runners"] = [unknown]
    shown, code = person("runners add lab1", ("[y/N]", "\n"))
    assert "was not added" in shown
    assert (code, len(state.added)) == (2, 1)


def test_stopping_everything_asks(person: Person, state: State) -> None:
    assert person("stop --all", ("[y/N]", "n\n"))[1] == 2
    assert state.stops == []
    assert person("stop --all", ("[y/N]", "y\n"))[1] == 0
    assert state.stops == [StopRequest(everything=True)]


def test_what_a_host_says_moves_no_cursor(person: Person, state: State) -> None:
    state.runners["lab1"] = runner_view("lab1", state="unusable", reason="\x1b[2Jgone\x07")

    shown, _ = person("runners")

    assert "\x1b[2J" not in shown
    assert "\x07" not in shown


def test_the_live_list_is_drawn_over_and_over(person: Person, state: State) -> None:
    state.runners["lab1"] = runner_view("lab1")

    def changed() -> str:
        state.runners["lab2"] = runner_view("lab2")
        return ""

    shown, code = person("runners -w", ("lab1", changed), ("lab2", CTRL_C))

    assert code == 0
    first, last = shown.index("lab1"), shown.rindex("lab1")
    assert "lab2" not in shown[first : shown.index("lab1", first + 1)]
    assert "lab2" in shown[last:]
    assert [line.split()[:1] for line in looks(shown)[:3]] == [["NAME"], ["lab1"], ["lab2"]]
