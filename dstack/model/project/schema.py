"""JSON Schemas of the project files, generated from their types. Editors use them to complete and check keys."""

from __future__ import annotations

from typing import Any

import msgspec

from dstack.model.project.workflow import ConfigsFile, WorkflowsFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def workflows_schema() -> dict[str, Any]:
    return _schema(WorkflowsFile)


def configs_schema() -> dict[str, Any]:
    return _schema(ConfigsFile)


def document(schema: dict[str, Any]) -> str:
    """The text of the schema's file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$schema": DIALECT, **_as_written(msgspec.json.schema(kind))}


def _as_written(schema: Any) -> Any:
    """Adapt the schema to handwritten YAML: text may look like a number or a boolean, and an unset key is left out."""
    if isinstance(schema, list):
        return [_as_written(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _as_written(value) for name, value in schema.items() if not name.startswith("x-")}
    if "x-scalar" in schema:
        found["type"] = ["string", "number", "boolean"]
    if "default" in found and found["default"] is None:
        del found["default"]
        choices = [choice for choice in found.pop("anyOf") if choice != {"type": "null"}]
        found.update(choices[0] if len(choices) == 1 else {"anyOf": choices})
    return found
