"""A line is read the same, whatever was read before it: templates only save time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.model.metrics.automatic import Automatic

NUMBERS = st.sampled_from(
    ["0", "7", "12", "0.5", "-1.25", "1e-5", "3.", ".5", "nan", "-inf", "+2", "1,5", "3/4", "5s", "8%", "1e999"]
)
PIECES = st.sampled_from(
    [
        "loss=",
        "loss ",
        "val loss: ",
        "step ",
        "Epoch ",
        "f1 ",
        "f2=",
        "top@",
        "x:",
        "a.py:",
        " ",
        ", ",
        "%|",
        "took ",
        "[",
        "]\t",
        "v",
    ]
)
SHAPES = st.lists(PIECES | st.just("#"), min_size=1, max_size=8)


@st.composite
def logs(draw: st.DrawFn) -> list[str]:
    """Lines of a few shapes: `#` stands for any number."""
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=3))
    lines = []
    for shape in draw(st.lists(st.sampled_from(shapes), min_size=2, max_size=12)):
        lines.append("".join(draw(NUMBERS) if piece == "#" else piece for piece in shape))
    return lines


@settings(deadline=None, max_examples=300)
@given(logs())
def test_templates_change_nothing(lines: list[str]) -> None:
    reader = Automatic()
    for line in lines:
        fresh = Automatic(reader.step, reader.columns)
        expected = fresh.read(line)
        assert str(reader.read(line)) == str(expected), line
        assert (reader.step, reader.columns) == (fresh.step, fresh.columns)


def test_a_template_is_learnt_and_used() -> None:
    # given
    reader = Automatic()
    first = reader.read("step 1: loss=0.5 at 12:30:05")
    # then
    (template,) = reader.templates.known["s"]
    assert first == (1, [("loss", 0.5)])
    assert template.read("step 20: loss=1e-3 at 09:00:59") == (20, [("loss", 0.001)])
    assert template.read("step 20: acc=1e-3 at 09:00:59") is None


def test_names_with_numbers_stay_apart() -> None:
    reader = Automatic()
    assert reader.read("top@5=0.5 layer/0/x=1") == (None, [("top@5", 0.5), ("layer/0/x", 1)])
    assert reader.read("top@1=0.5 layer/1/x=1") == (None, [("top@1", 0.5), ("layer/1/x", 1)])


def test_what_is_learnt_is_bounded() -> None:
    reader = Automatic()
    for number in range(1000):
        reader.read(f"{chr(65 + number % 26)}{'x' * (number // 26)} loss=1")
    assert reader.templates.learnt <= 64
