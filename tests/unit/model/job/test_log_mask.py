"""No byte of a secret is served, wherever the log is cut."""

from __future__ import annotations

import base64
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.job.log_mask import mask, needles, reach, unfinished

small = st.text(alphabet="ab", min_size=4, max_size=7)


def test_each_byte_becomes_a_star() -> None:
    values = needles(["hunter2", "first line\nsecond line", "abc", "ünïcode"])

    assert mask(b"", b"x hunter2 y hunter2", b"", values) == b"x ******* y *******"
    assert mask(b"", b"> first line <", b"", values) == b"> ********** <"
    assert mask(b"", "ünïcode".encode(), b"", values) == b"*" * 9
    assert mask(b"", b"abc", b"", values) == b"abc"
    assert mask(b"hun", b"ter2 and hun", b"ter2", values) == b"**** and ***"


@pytest.mark.parametrize("around", [(b"", b""), (b"u:", b"@h"), (b"u", b"\n"), (b"xy", b"z"), (b"xyz", b"\0\0")])
def test_base64_is_masked_at_every_alignment(around: tuple[bytes, bytes]) -> None:
    secret = "s3cr?t~key>\u00ff/token"
    values = needles([secret])

    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        line = encode(around[0] + secret.encode() + around[1])
        shown = mask(b"", line, b"", values)
        hidden = [number for number, (old, new) in enumerate(zip(line, shown, strict=True)) if old != new]
        whole = range(-(-len(around[0]) * 8 // 6), (len(around[0]) + len(secret.encode())) * 8 // 6)
        assert hidden[: len(whole)] == list(whole), shown
    assert mask(b"", base64.b64encode(secret.encode()), b"", values).strip(b"*") == b""
    assert mask(b"", base64.b64encode(secret.encode() + b"\n"), b"", values).strip(b"*") == b""


@pytest.mark.parametrize(
    "line",
    [
        b"https://u:p%40ss%2Fw%C3%B6rd%20%2B%21@host/",
        b"https://u:p%40ss%2fw%c3%b6rd%20%2b%21@host/",
        b"https://u:p%40ss/w%C3%B6rd%20%2B%21@host/",
        b"https://u:p%40ss%2Fw%C3%B6rd+%2B%21@host/",
        b"https://u:p%40ss%2Fw%C3%B6rd%20%2B!@host/",
    ],
)
def test_what_a_url_has_is_masked(line: bytes) -> None:
    secret, login = "p@ss/w\u00f6rd +!", len(b"https://u:")

    shown = mask(b"", line, b"", needles([secret]))

    assert shown == line[:login] + b"*" * (len(line) - login - len(b"@host/")) + b"@host/"


def test_encoded_forms_are_bounded() -> None:
    key = "\n".join(f"line {number} of a private key" for number in range(2000))

    assert len(needles([key])) == 2001
    assert len(needles(["hunter2"])) < 20
    assert len(needles(["abc"])) == 0


def test_what_may_be_the_beginning_waits() -> None:
    values = needles(["hunter2"])

    assert unfinished(b"say hun", values) == 3
    assert unfinished(b"say hunter2", values) == 0
    assert unfinished(b"", values) == unfinished(b"x", ()) == 0


@given(log=st.text(alphabet="abc", max_size=60), values=st.lists(small, max_size=3), cuts=st.sets(st.integers(0, 60)))
def test_pieces_are_masked_as_the_whole_is(log: str, values: list[str], cuts: set[int]) -> None:
    data, wanted = log.encode(), needles(values)
    far = reach(wanted)
    whole = mask(b"", data, b"", wanted)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})

    pieces = [
        mask(data[max(0, begin - far) : begin], data[begin:end], data[end : end + far], wanted)
        for begin, end in pairwise(edges)
    ]

    assert b"".join(pieces) == whole
    assert not any(value in whole for value in wanted)


@given(log=st.text(alphabet="ab", max_size=40), values=st.lists(small, min_size=1, max_size=3), at=st.integers(0, 40))
def test_what_is_served_of_a_growing_log_stays_true(log: str, values: list[str], at: int) -> None:
    """What is served of a part of the log is served the same once the rest has arrived."""
    data, wanted = log.encode(), needles(values)
    part = data[:at]
    early = part[: len(part) - unfinished(part[-reach(wanted) :], wanted)]

    assert mask(b"", data, b"", wanted).startswith(mask(b"", early, part[len(early) :], wanted))
