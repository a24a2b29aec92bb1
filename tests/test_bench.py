"""scripts/bench measures in turns, says what it could not measure, and draws what it measured."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "scripts" / "lib" / "bench"
sys.path.insert(0, str(BENCH))

from measure import NotMeasuredError, finished, in_turns  # noqa: E402
from plot import svg  # noqa: E402
from proxy import Proxy  # noqa: E402
from table import Row, as_json, lines, measured  # noqa: E402


def test_ways_take_turns_after_a_warm_up() -> None:
    taken: list[str] = []
    costs = iter([9.0, 9.0, 1.0, 2.0, 5.0, 2.0, 3.0, 4.0])

    def way(name: str) -> float:
        taken.append(name)
        return next(costs)

    found = in_turns({"a": lambda: way("a"), "b": lambda: way("b")}, 3)

    assert "".join(taken) == "abababab"
    assert (found["a"].least, found["a"].median, found["a"].most) == (1.0, 3.0, 5.0)
    assert found["b"].median == 2.0


def test_a_row_that_cant_be_measured_says_why_and_the_others_go_on() -> None:
    def missing(world: object) -> dict[str, object]:
        raise NotMeasuredError("dvc is not installed")

    rows = [
        Row("one", "something", "a rival", "0.5", lambda world: {"ours": lambda: 1.0, "theirs": lambda: 4.0}),
        Row("two", "another", "a rival", "0.5", missing),
        Row("three", "a command", "-", "-", lambda world: {"ours": finished(["sh", "-c", "echo sorry >&2; exit 3"])}),
    ]

    results = [measured(row, None, 3) for row in rows]

    assert results[0].ratio == 0.25
    assert lines(results[0])[-1] == "    x0.25 of a rival; target 0.5"
    assert lines(results[1]) == ["two            another: not measured: dvc is not installed"]
    assert "exits with 3: sorry" in (results[2].missing or "")
    told = json.loads(as_json(results))
    assert [each["ratio"] for each in told] == [0.25, None, None]
    assert told[0]["costs"]["theirs"] == {"median": 4.0, "least": 4.0, "most": 4.0}


def test_a_plot_has_a_point_for_each_measurement_where_it_belongs() -> None:
    drawn = ElementTree.fromstring(
        svg("Logs & more", "bytes", "s", {"flat": [(1e6, 0.1), (1e9, 0.1)], "b": [(1e7, 2.0)]})
    )

    circles = drawn.findall("{*}circle")
    places = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in circles]
    assert len(places) == 3
    assert places[0][1] == places[1][1] > places[2][1]
    assert places[0][0] < places[2][0] < places[1][0]
    assert "Logs & more" in {each.text for each in drawn.findall("{*}text")}


def test_a_long_link_passes_every_byte_and_counts_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1], delay=0.01)

        def echo() -> None:
            far, _ = listener.accept()
            with far:
                while data := far.recv(65536):
                    far.sendall(data)

        threading.Thread(target=echo, daemon=True).start()
        sent = bytes(range(256)) * 2000
        with socket.create_connection(("127.0.0.1", proxy.port)) as near:
            near.sendall(sent)
            near.shutdown(socket.SHUT_WR)
            with near.makefile("rb") as answer:
                assert answer.read() == sent
    assert proxy.count == 2 * len(sent)


@pytest.mark.parametrize(
    ("words", "code", "said"), [(["--list"], 0, "first-line"), (["--only", "nothing"], 2, "there is no row 'nothing'")]
)
def test_rows_have_names(words: list[str], code: int, said: str) -> None:
    done = subprocess.run([sys.executable, BENCH, *words], capture_output=True, text=True)

    assert done.returncode == code
    assert said in done.stdout + done.stderr
