"""Codes: stable names that programs compare, while the texts beside them may change."""

from __future__ import annotations

from enum import Enum


class Code(str, Enum):
    """A kebab-case name with one line about its meaning. docs/codes.md lists all of them."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Code:
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    def __str__(self) -> str:
        return str(self.value)
