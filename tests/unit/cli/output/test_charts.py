"""Small charts of what jobs use."""

from __future__ import annotations

import pytest

from dstack.cli.output.charts.usage import chart, print_metrics
from dstack.model.runner.metrics import JobMetrics, Point


@pytest.mark.parametrize(
    ("values", "bars"),
    [([0.0, 1.0], "▁█"), ([0.0, 0.0], "▁▁"), ([1.0] * 4, "████"), ([0, 1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇██")],
)
def test_bars(values: list[float], bars: str) -> None:
    assert chart(values, 60) == bars


def test_a_long_time_is_averaged_to_the_width() -> None:
    assert chart([0.0] * 500 + [8.0] * 500, 10) == "▁▁▁▁▁█████"


def test_a_jobs_charts(capsys: pytest.CaptureFixture[str]) -> None:
    points = [
        Point(time=100, cpu=1.0, memory=1024**3, gpu=50.0, gpu_memory=2 * 1024**3),
        Point(time=110, cpu=3.0, memory=2 * 1024**3, gpu=100.0, gpu_memory=4 * 1024**3),
    ]
    print_metrics(
        [
            JobMetrics(job="a", workflow="train", runner="gpu1", points=points),
            JobMetrics(job="b", workflow="eval", runner=None, points=[]),
        ],
        as_json=False,
    )

    assert capsys.readouterr().out == (
        "train on gpu1, 10s:\n"
        "  cpu        ▃█  2.0 on average, 3.0 peak\n"
        "  memory     ▅█  1.5 GB on average, 2 GB peak\n"
        "  gpu        ▅█  75% on average, 100% peak\n"
        "  gpu memory ▅█  4 GB peak\n"
        "eval: no samples were taken\n"
    )
