"""JSON Schemas of the project files, generated from their types. Editors use them to complete and check keys."""

from __future__ import annotations

from typing import Any

import msgspec

from dstack.model.project.workflow import ConfigsFile, WorkflowsFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(kind: type[WorkflowsFile | ConfigsFile]) -> dict[str, Any]:
    return {"$schema": DIALECT, **_as_written(msgspec.json.schema(kind))}


def document(kind: type[WorkflowsFile | ConfigsFile]) -> str:
    """The text of the schema's file."""
    return msgspec.json.format(msgspec.json.encode(schema(kind)), indent=2).decode() + "\n"


def _as_written(written: Any) -> Any:
    """Adapt the schema to handwritten YAML: text may look like a number or a boolean, and an unset key is left out."""
    if isinstance(written, list):
        return [_as_written(item) for item in written]
    if not isinstance(written, dict):
        return written
    found = {name: _as_written(value) for name, value in written.items() if not name.startswith("x-")}
    if "x-scalar" in written:
        found["type"] = ["string", "number", "boolean"]
    if "default" in found and found["default"] is None:
        del found["default"]
        choices = [choice for choice in found.pop("anyOf") if choice != {"type": "null"}]
        found.update(choices[0] if len(choices) == 1 else {"anyOf": choices})
    return found
