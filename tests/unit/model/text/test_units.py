"""Sizes, durations and times, read and printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.text.units import (
    age_words,
    disk_bytes,
    lacks_unit,
    memory_bytes,
    memory_words,
    rfc3339,
    seconds,
    size_words,
    span,
    span_words,
    took_words,
)


@pytest.mark.parametrize(
    ("text", "disk", "memory"),
    [
        ("0", 0, 0),
        ("16", 16, 16),
        ("100B", 100, 100),
        ("2GB", 2 * 1000**3, 2 * 1024**3),
        ("2G", 2 * 1000**3, 2 * 1024**3),
        ("8g", 8 * 1000**3, 8 * 1024**3),
        ("8gb", 8 * 1000**3, 8 * 1024**3),
        ("512m", 512 * 1000**2, 512 * 1024**2),
        ("1.5 GB", 1_500_000_000, 1_610_612_736),
        ("1kB", 1000, 1024),
        ("2GiB", 2 * 1024**3, 2 * 1024**3),
        ("1Ti", 1024**4, 1024**4),
        ("8GIB", 8 * 1024**3, 8 * 1024**3),
        ("2P", 2 * 1000**5, 2 * 1024**5),
        ("1.5pb", 1_500_000_000_000_000, 3 * 1024**5 // 2),
    ],
)
def test_a_gb_of_disk_is_decimal_and_a_gb_of_memory_binary(text: str, disk: int, memory: int) -> None:
    assert (disk_bytes(text), memory_bytes(text)) == (disk, memory)


@pytest.mark.parametrize("text", ["", "lots", "GB", "-1GB", "1.5.2GB", "1GB\n", "1 GBB", "1e9", "1iB", "٣GB"])
def test_no_sizes(text: str) -> None:
    for read in (disk_bytes, memory_bytes):
        with pytest.raises(ValueError, match="is not a size; write 512MB, 16GB or 1TB"):
            read(text)


def test_a_size_without_a_unit() -> None:
    assert [lacks_unit(text) for text in ("16", "1.5", "0", "16B", "16GB")] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("count", "disk", "memory"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (1000, "1 kB", "1000 B"),
        (1024, "1 kB", "1 KB"),
        (999_960, "1 MB", "976.5 KB"),
        (16 * 1024**3, "17.2 GB", "16 GB"),
        (2 * 10**9, "2 GB", "1.9 GB"),
        (1024**3 - 1, "1.1 GB", "1 GB"),
        (5 * 10**15, "5000 TB", "4547.5 TB"),
    ],
)
def test_sizes_in_words(count: int, disk: str, memory: str) -> None:
    assert (size_words(count), memory_words(count)) == (disk, memory)


@given(st.integers(0, 10**15))
def test_what_is_printed_can_be_read(count: int) -> None:
    for words, read in ((size_words, disk_bytes), (memory_words, memory_bytes)):
        assert read(words(count)) == pytest.approx(count, rel=0.06, abs=1)


@pytest.mark.parametrize(
    ("text", "expected"), [("30s", 30), ("5m", 300), ("1h30m", 5400), ("2d", 172_800), ("0.5h", 1800), ("90", 90)]
)
def test_durations(text: str, expected: float) -> None:
    assert span(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "5 m", "m", "1h30", "-5m"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 30s, 10m, 1h30m or 2d"):
        span(text)


def test_durations_in_words() -> None:
    assert [span_words(each) for each in (0, 45, 5400, 86_401)] == ["0s", "45s", "1h30m", "1d1s"]
    assert [took_words(each) for each in (-1, 0.44, 12, 185, 7800, 273_600)] == [
        "0.0s",
        "0.4s",
        "12s",
        "3m 5s",
        "2h 10m",
        "3d 4h",
    ]
    assert [age_words(each) for each in (-1, 5.9, 300, 7300, 200_000)] == [
        "0s ago",
        "5s ago",
        "5m ago",
        "2h ago",
        "2d ago",
    ]


def test_times() -> None:
    assert rfc3339(seconds("2026-01-31T12:00:00.250Z")) == "2026-01-31T12:00:00.250Z"
    assert seconds("2026-01-31T13:00:00+01:00") == seconds("2026-01-31T12:00:00z")
    with pytest.raises(ValueError, match="isoformat"):
        seconds("yesterday")
