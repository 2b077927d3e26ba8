"""Gemini's own schemas (a part of OpenAPI's, types in capitals) as the JSON Schema that all other APIs take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.translation.losses import Undecodable
from llm_sidecar.translation.spelling import snake_case

_DEEPEST: Final = 100
_UNTYPED: Final = "TYPE_UNSPECIFIED"
_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_NAMES: Final = ("anyOf", "propertyOrdering", "additionalProperties", *_COUNTS)
_CAMEL: Final = {snake_case(name): name for name in _NAMES}
_RENAMED: Final = {"defs": "$defs", "ref": "$ref"}


def to_json_schema(schema: Mapping[str, Any], where: str, depth: int = 0) -> dict[str, Any]:
    """The same in JSON Schema. Raises `Undecodable` for one that nobody could mean."""
    if depth > _DEEPEST:
        raise Undecodable(f"{where} is nested too deep")
    fields = {_CAMEL.get(name, name): value for name, value in schema.items() if value is not None}
    order = fields.pop("propertyOrdering", None)
    is_nullable = fields.pop("nullable", False) is True
    result: dict[str, Any] = {}
    for name, value in fields.items():
        result[_RENAMED.get(name, name)] = _value(name, value, where, depth)
    if result.get("type") == _UNTYPED.lower():
        del result["type"]
    if result.get("format") == "enum":
        # Says that a string has an `enum`, and nothing that JSON Schema knows.
        del result["format"]
    if isinstance(order, list) and isinstance(result.get("properties"), dict):
        result["properties"] = _ordered(result["properties"], order)
    return _nullable(result) if is_nullable else result


def _value(name: str, value: Any, where: str, depth: int) -> Any:
    if name == "type" and isinstance(value, str):
        return value.lower()
    if name in _COUNTS and isinstance(value, str) and value.isdecimal():
        # Protobuf writes 64-bit numbers as strings.
        return int(value)
    if name in ("properties", "defs") and isinstance(value, dict):
        return {key: _nested(each, where, depth) for key, each in value.items()}
    if name in ("items", "additionalProperties"):
        return _nested(value, where, depth)
    if name == "anyOf" and isinstance(value, list):
        return [_nested(each, where, depth) for each in value]
    return value


def _nested(value: Any, where: str, depth: int) -> Any:
    return to_json_schema(value, where, depth + 1) if isinstance(value, dict) else value


def _ordered(properties: Mapping[str, Any], order: list[Any]) -> dict[str, Any]:
    """In the order that was asked for: other APIs answer in the order in which a schema names its properties."""
    first = {name: properties[name] for name in order if isinstance(name, str) and name in properties}
    return first | {name: value for name, value in properties.items() if name not in first}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        return schema
    if isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema
