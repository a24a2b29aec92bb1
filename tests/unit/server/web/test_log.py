"""The log as a page shows it: what a terminal would show, a window at a time, searched in bounded time."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.paths import ServerLayout
from dstack.server.web.log import search as searching
from dstack.server.web.log.search import search
from dstack.server.web.log.tail import Tail, tail_of
from dstack.server.web.log.terminal import lines_as_html
from dstack.server.web.log.window import WINDOW, LogSource, window_at, window_before
from dstack.store.logs import Logs

JOB = "0123456789ab"


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    layout = ServerLayout(tmp_path)
    layout.logs.mkdir(parents=True)
    return Logs(layout)


def source(logs: Logs, *secrets: bytes, ended: bool = False) -> LogSource:
    return LogSource(logs, JOB, secrets, ended)


def texts(lines: list[str]) -> list[str]:
    return [str(line) for line in lines_as_html(lines)]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain <b>&", "plain &lt;b&gt;&amp;"),
        ("\x1b[31mred\x1b[0m", '<span class="f1">red</span>'),
        ("\x1b[1;4;92mx\x1b[24my\x1b[22;39mz", '<span class="b u f10">x</span><span class="b f10">y</span>z'),
        ("\x1b[48;5;196mx", '<span class="g9">x</span>'),
        ("\x1b[38;2;0;90;0mx", '<span class="f2">x</span>'),
        ("\x1b[38;5mx", "x"),
        ("\x1b[999999999999mx", "x"),
        (" 10%\r 55%\r100%", "100%"),
        ("downloading\rdone", "doneloading"),
        ("downloading\r\x1b[Kdone", "done"),
        ("downloading\x1b[2K\rdone", "done"),
        ("ab\bc", "ac"),
        ("a\x1b[3Cb", "a   b"),
        ("abc\x1b[2Dx", "axc"),
        ("abc\x1b[1Gx", "xbc"),
        ("windows\r", "windows"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;javascript:alert(1)\x07x", "x"),
        ("\x1b[?25lx\x1b[1A\x1b(By", "xy"),
        ("a\x00b\u202ec", "a�b�c"),
        ("\x1b[99999999Cx", None),
    ],
)
def test_a_line_is_shown_as_a_terminal_shows_it(line: str, shown: str | None) -> None:
    (found,) = texts([line])

    assert found == shown or (shown is None and len(found) < 100_000)


def test_a_colour_goes_on_in_the_next_line() -> None:
    assert texts(["\x1b[31mone", "two\x1b[0m", "three"]) == [
        '<span class="f1">one</span>',
        '<span class="f1">two</span>',
        "three",
    ]


@given(
    st.lists(st.text(alphabet="ab<>&\"' \r\b\x1b[]0123456789;:mKCDGHJ\x07\x00\u202e\udcff", max_size=60), max_size=5)
)
def test_no_line_becomes_markup(lines: list[str]) -> None:
    for found in texts(lines):
        left = re.sub(r'<span class="[a-z0-9 ]+">|</span>|&(amp|lt|gt|#34|#39);', "", found)
        assert not re.search("[<>&\x1b\x00\u202e]", left)


def test_windows_make_up_the_whole_log(logs: Logs) -> None:
    written = b"".join(b"line %d %s\n" % (number, b"x" * (number % 300)) for number in range(2000))
    logs.append(JOB, written)
    log, at, lines = source(logs), 0, []
    while at < len(written):
        window = window_at(log, at)
        assert window.end - window.start <= WINDOW
        lines += [str(line.text) for line in window.lines]
        at = window.end

    assert lines == written.decode().splitlines()


def test_the_window_before_ends_where_the_next_begins(logs: Logs) -> None:
    logs.append(JOB, b"0123456789\n" * 30_000)
    log = source(logs)
    last = window_before(log, log.size)

    before = window_before(log, last.start)

    assert (last.end, last.lines[0].at) == (330_000, last.start)
    assert before.end == last.start
    assert {str(line.text) for line in before.lines} == {"0123456789"}


def test_a_line_knows_when_it_arrived(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    for second, text in enumerate((b"one\ntwo\n", b"three\n")):
        monkeypatch.setattr(time, "time", lambda second=second: 1_700_000_000.0 + second)
        logs.append(JOB, text)

    window = window_at(source(logs), 0)

    assert [(str(line.text), line.time[17:19]) for line in window.lines] == [
        ("one", "20"),
        ("two", "20"),
        ("three", "21"),
    ]


def test_a_log_of_10_gb_is_read_a_window_at_a_time(logs: Logs) -> None:
    logs.append(JOB, b"first\n")
    with logs.layout.log(JOB).open("r+b") as file:
        file.truncate(10 * 10**9)
        file.seek(0, 2)
        file.write(b"\nlast\n")

    assert str(window_at(source(logs), 0).lines[0].text) == "first"
    window = window_before(source(logs), 2**60)
    assert str(window.lines[-1].text) == "last"
    assert window_at(source(logs), 5 * 10**9).end - 5 * 10**9 <= WINDOW


def test_one_endless_line_is_cut_between_characters(logs: Logs) -> None:
    logs.append(JOB, "é".encode() * 100_000)

    window = window_at(source(logs), 0)

    assert set(str(window.lines[0].text)) == {"é"}
    assert set(str(window_at(source(logs), window.end).lines[0].text)) == {"é"}


def test_secrets_are_masked_and_one_that_is_arriving_waits(logs: Logs) -> None:
    logs.append(JOB, b"token hunter2-hunter2 and hunter2-h")

    assert str(window_at(source(logs, b"hunter2-hunter2"), 0).lines[0].text) == "token *************** and "
    assert [str(hit.text) for hit in search(source(logs, b"hunter2-hunter2"), "hunter", 0).hits] == []


def more(tail: Tail) -> tuple[int, list[str]] | None:
    found = asyncio.run(tail.more(""))
    return found and (found["at"], re.findall(r"<span>(.*?)</span></div>", found["html"]))


def test_a_tail_sends_what_is_new_and_a_growing_line_again(logs: Logs) -> None:
    logs.append(JOB, b"one\n 10%")
    window = window_before(source(logs), 8)
    tail = tail_of(source(logs), "/log?job=x", window)
    assert more(tail) is None

    logs.append(JOB, b"\r 50%")
    assert more(tail) == (4, [" 50%"])
    logs.append(JOB, b"\rdone\ntwo\n")
    assert more(tail) == (4, ["done", "two"])
    logs.append(JOB, b"three\n")

    assert more(tail) == (len(b"one\n 10%\r 50%\rdone\ntwo\n"), ["three"])
    assert more(tail) is None


def test_a_tail_that_falls_behind_skips_to_the_end(logs: Logs) -> None:
    logs.append(JOB, b"one\n")
    tail = tail_of(source(logs), "", window_before(source(logs), 4))
    logs.append(JOB, b"0123456789\n" * 100_000 + b"last\n")

    found = asyncio.run(tail.more(""))

    assert found
    assert found["skipped"]
    assert "last" in found["html"]
    assert len(found["html"]) < 40 * WINDOW


@pytest.mark.parametrize("nonsense", ["", "x", "-1", "9" * 30])
def test_a_tail_resumes_whatever_its_reader_says(logs: Logs, nonsense: str) -> None:
    logs.append(JOB, b"one\n")

    assert more(Tail(source(logs), "", 4, 4).resumed(nonsense)) == (0, ["one"])


def test_a_search_finds_lines_and_where_they_begin(logs: Logs) -> None:
    logs.append(JOB, b"loss 1.9\n" + b"x" * 5000 + b"\nval LOSS \x1b[31m1.7\x1b[0m <b>\nloss loss\n")

    found = search(source(logs), "loss", 0)

    assert found.complete
    assert [hit.at for hit in found.hits] == [0, 5010, 5010 + len(b"val LOSS \x1b[31m1.7\x1b[0m <b>\n")]
    assert str(found.hits[1].text) == "val <mark>LOSS</mark> 1.7 &lt;b&gt;"


def test_a_search_is_bounded_and_goes_on(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.append(JOB, b"hit\n" * 250)
    found, starts = search(source(logs), "hit", 0), [0]
    while not found.complete:
        starts.append(found.until)
        found = search(source(logs), "hit", found.until)
    assert starts == [0, 400, 800]

    monkeypatch.setattr(searching, "AT_ONCE", searching.BLOCK)
    logs.append(JOB, b"x" * 3 * searching.BLOCK + b"\nlast\n")
    first = search(source(logs), "last", 0)
    assert (first.hits, first.until, first.complete) == ([], searching.BLOCK, False)
