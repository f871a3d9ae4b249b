"""The part of JSON Schema (draft 2020-12) that the project's schemas use, to check files."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def violations(
    value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$"
) -> list[str]:
    """Return what of a value does not follow a schema, one line each."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return violations(value, root["$defs"][name], root, at)
    if "oneOf" in schema:
        return _one_of(value, schema["oneOf"], root, at)
    found: list[str] = []
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    is_bool = isinstance(value, bool)
    if types and not any(
        isinstance(value, TYPES[t]) and (is_bool == (t == "boolean")) for t in types
    ):
        return [f"{at}: {value!r} is no {types}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if isinstance(value, int) and value < schema.get("minimum", value):
        found.append(f"{at}: {value} is too small")
    if isinstance(value, dict):
        found += _object(value, schema, root, at)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            found += violations(item, schema["items"], root, f"{at}[{index}]")
    return found


def _one_of(value: Any, choices: list[dict[str, Any]], root: dict[str, Any], at: str) -> list[str]:
    tried = [violations(value, choice, root, at) for choice in choices]
    fitting = sum(not found for found in tried)
    if fitting == 1:
        return []
    return [f"{at}: fits {fitting} of {len(choices)}: {min(tried, key=len)[:1]}"]


def _object(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str
) -> list[str]:
    found = [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    for name, item in value.items():
        if name in properties:
            found += violations(item, properties[name], root, f"{at}.{name}")
        elif others is False:
            found.append(f"{at}: {name} is not known")
        else:
            found += violations(item, others, root, f"{at}.{name}")
    return found
