"""Frames survive any division into pieces, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.api.streams import MOST, FrameKind, FrameReader, frame, frames, size_frame, size_of

KINDS = st.sampled_from(FrameKind)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=300))), st.integers(1, 50))
def test_frames_arrive_as_they_were_sent(sent: list[tuple[FrameKind, bytes]], piece: int) -> None:
    reader, whole = FrameReader(), b"".join(frame(kind, payload) for kind, payload in sent)

    pieces = [whole[start : start + piece] for start in range(0, len(whole), piece)]

    assert [each for data in pieces for each in reader.feed(data)] == sent


def test_data_of_any_length_is_sent_in_frames_within_the_limit() -> None:
    data = bytes(range(256)) * (MOST // 256) * 2 + b"rest"

    sent = [each for whole in frames(FrameKind.DATA, data) for each in FrameReader().feed(whole)]

    assert b"".join(payload for _, payload in sent) == data
    assert max(len(payload) for _, payload in sent) == MOST


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"\x01\xff\xff\xff\xff", b"\x09\x00\x00\x00\x00"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a frame"):
        list(FrameReader().feed(data))


def test_a_size() -> None:
    ((kind, payload),) = FrameReader().feed(size_frame(200, 50))

    assert (kind, size_of(payload)) == (FrameKind.SIZE, (200, 50))
    with pytest.raises(ValueError, match="size"):
        size_of(b"x")
