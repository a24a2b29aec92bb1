"""Decodes YAML nodes into the types of `workflow.py`. Every rule is read from the types themselves."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from msgspec import Struct
from msgspec import inspect as types
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from dstack.model.project.nodes import NULL, FieldPath, Maps, Report, line
from dstack.model.text.suggest import did_you_mean

T = TypeVar("T", bound=Struct)

TAGS = frozenset(
    f"tag:yaml.org,2002:{tag}"
    for tag in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
)
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")


class Decoder:
    """Decodes one file, and reports every problem and the line of every value."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._maps = Maps(report)

    def decode(self, node: Node, kind: type[T]) -> T:
        """Return the document's value. Invalid parts are reported, and blank in it: empty, or the default."""
        value: T = self._value(types.type_info(kind), node, FieldPath())
        return value

    def _value(self, kind: types.Type, node: Node, where: FieldPath) -> Any:
        self._report.read(node)
        bare, expected = _bare(kind)
        options = [_bare(option) for option in bare.types] if isinstance(bare, types.UnionType) else [(bare, expected)]
        if node.tag not in TAGS:
            self._report.refuse(where, f"has the YAML tag '{node.tag}', which is not supported; remove the tag")
            return _blank(kind)
        for option, expected in options:
            if _fits(option, node):
                return self._fitting(option, node, where, expected)
        self._report.refuse(where, _mismatch([option for option, _ in options], node))
        return _blank(kind)

    def _fitting(self, kind: types.Type, node: Node, where: FieldPath, expected: str) -> Any:
        if isinstance(kind, types.StructType):
            return self._struct(kind, node, _called_by_name(kind, node, where))
        if isinstance(kind, types.DictType):
            return self._dict(kind, node, where)
        if isinstance(kind, types.VarTupleType):
            return self._tuple(kind, node, where)
        return None if isinstance(kind, types.NoneType) else self._scalar(kind, node.value, where, expected)

    def _struct(self, kind: types.StructType, node: Node, where: FieldPath) -> Struct:
        fields = {field.encode_name: field for field in kind.fields}
        values: dict[str, Any] = {}
        for entry in self._maps.entries(node, str(where)):
            field = fields.get(entry.key)
            if field is None:
                near = did_you_mean(entry.key, fields)
                self._report.add(entry.line, f"unknown key '{entry.key}' in {where}{near}")
                continue
            inner = where / entry.key
            self._report.lines[inner.path] = entry.line
            if not field.required and entry.value.tag == NULL:
                self._report.refuse(inner, "has no value; add one or remove the key")
                continue
            values[field.name] = self._value(field.type, entry.value, inner)
        for field in kind.fields:
            if field.required and field.name not in values:
                self._report.add(line(node), f"{where} is missing the required key '{field.encode_name}'")
                values[field.name] = _blank(field.type)
        built: Struct = kind.cls(**values)
        return built

    def _dict(self, kind: types.DictType, node: Node, where: FieldPath) -> dict[str, Any]:
        key_type, expected = _bare(kind.key_type)
        values: dict[str, Any] = {}
        for entry in self._maps.entries(node, str(where)):
            inner = where / entry.key
            self._report.lines[inner.path] = entry.line
            if trouble := _text_trouble(key_type, entry.key, f" is not {expected}"):
                self._report.add(entry.line, f"'{entry.key}' in {where}{trouble}")
            values[entry.key] = self._value(kind.value_type, entry.value, inner)
        return values

    def _tuple(self, kind: types.VarTupleType, node: Node, where: FieldPath) -> tuple[Any, ...]:
        if len(node.value) < (kind.min_length or 0):
            self._report.refuse(where, "is empty; add at least one entry")
        if kind.max_length and len(node.value) > kind.max_length:
            self._report.refuse(where, f"has {len(node.value):,} entries; it may have {kind.max_length:,}")
            return ()
        values = []
        for index, item in enumerate(node.value):
            self._report.lines[(where / index).path] = line(item)
            values.append(self._value(kind.item_type, item, where / index))
        return tuple(values)

    def _scalar(self, kind: types.Type, text: str, where: FieldPath, expected: str) -> str | int | bool:
        if isinstance(kind, types.BoolType):
            if text not in BOOLEANS:
                self._report.refuse(where, f"must be true or false, not '{text}'")
            return BOOLEANS.get(text, False)
        if isinstance(kind, types.IntType):
            number = int(text) if WHOLE.fullmatch(text) else None
            if number is None or not (kind.ge or 0) <= number <= (kind.le or number):
                self._report.refuse(where, f"must be a whole number from {kind.ge} to {kind.le}, not '{text}'")
            return number or 0
        if trouble := _text_trouble(kind, text, f": '{text}' is not {expected}"):
            self._report.add(where, f"{where}{trouble}")
        return text


def _bare(kind: types.Type) -> tuple[types.Type, str]:
    """The type without its metadata, and what it expects: the end of the sentence "'VALUE' is not ..."."""
    expected = ""
    while isinstance(kind, types.Metadata):
        expected = expected or str((kind.extra_json_schema or {}).get("x-expected", ""))
        kind = kind.type
    return kind, expected


def _called_by_name(kind: types.StructType, node: Node, where: FieldPath) -> FieldPath:
    """Let messages call a struct that has a name by that name, or by its number if the name is missing."""
    step = where.path[-1] if where.path else None
    if not isinstance(step, int) or "name" not in {field.encode_name for field in kind.fields}:
        return where
    names = [value.value for key, value in node.value if key.value == "name" and isinstance(value, ScalarNode)]
    title = kind.cls.__name__.lower()
    return where.named(f"{title} '{names[0]}'" if names and names[0] else f"{title} {step + 1}")


FORMS: dict[type[types.Type], tuple[type[Node], str]] = {
    types.StrType: (ScalarNode, "text"),
    types.IntType: (ScalarNode, "a whole number"),
    types.BoolType: (ScalarNode, "true or false"),
    types.VarTupleType: (SequenceNode, "a list"),
    types.DictType: (MappingNode, "a map"),
    types.StructType: (MappingNode, "a map"),
}
"""The node that each type is written as, and what messages call the type."""


def _fits(kind: types.Type, node: Node) -> bool:
    if isinstance(kind, types.NoneType) or _is_null(node):
        return isinstance(kind, types.NoneType) and _is_null(node)
    return isinstance(node, FORMS[type(kind)][0])


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == NULL


def _mismatch(options: list[types.Type], node: Node) -> str:
    if _is_null(node):
        return "has no value; add one"
    expected = [FORMS[type(option)][1] for option in options if not isinstance(option, types.NoneType)]
    is_map = isinstance(node, MappingNode)
    actual = "a map" if is_map else "a list" if isinstance(node, SequenceNode) else "text"
    hint = "; put text that contains ': ' in quotes" if is_map and "text" in expected else ""
    return f"must be {' or '.join(dict.fromkeys(expected))}, not {actual}{hint}"


def _text_trouble(kind: types.Type, text: str, mismatch: str) -> str | None:
    """What is wrong with the text, in words that follow its name; `mismatch` if its pattern does not match."""
    if "\0" in text:
        return " contains a NUL character; remove it"
    if re.search("[\ud800-\udfff]", text):
        return " contains half of a surrogate pair; write the whole character"
    if not isinstance(kind, types.StrType):
        return None
    if kind.min_length and len(text) < kind.min_length:
        return " is empty; add a value"
    if kind.max_length and len(text) > kind.max_length:
        return f" is longer than {kind.max_length} characters; shorten it"
    return None if kind.pattern is None or re.search(kind.pattern, text) else mismatch


def _blank(kind: types.Type) -> Any:
    """A stand-in for an invalid value, so that the rest can still be checked."""
    bare, _ = _bare(kind)
    if isinstance(bare, types.UnionType):
        return _blank(bare.types[-1])
    if isinstance(bare, types.StructType):
        return bare.cls(**{field.name: _blank(field.type) for field in bare.fields if field.required})
    blanks: dict[type[types.Type], Any] = {types.StrType: "", types.VarTupleType: (), types.DictType: {}}
    return blanks.get(type(bare))
