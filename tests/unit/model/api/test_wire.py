"""Paths with bytes that are not UTF-8 survive encoding and decoding."""

from __future__ import annotations

import json
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.api import wire
from dstack.model.code.tree import Change


@given(st.binary(max_size=20).map(os.fsdecode))
def test_any_path_survives(path: str) -> None:
    change = Change(path, "added", 1)

    encoded = wire.encode([change])

    assert wire.decode(encoded, list[Change]) == [change]
    assert json.loads(encoded)[0]["path"] == path


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"path": 1}', b'{"path": "\\ud800"'])
def test_what_is_no_json_is_refused(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        wire.decode(broken, Change)
