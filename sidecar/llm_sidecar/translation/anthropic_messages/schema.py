"""What of a JSON Schema Anthropic takes where it has to keep to one (structured output, strict tools).

Every object is closed (`additionalProperties: false`), and constraints that are not enforced are told to the model in
the description instead, as Anthropic's own SDK does; each of them is named as dropped (`schema.minimum`). `oneOf` is
said as `anyOf`. Refused: a schema that is no object, and a part of one without any type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from llm_sidecar.translation.losses import Losses, Untranslatable

_STRING_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_KEPT: Final = frozenset({"type", "enum", "const", "title", "description", "required", "default"})
_SCHEMAS: Final = frozenset({"items", "anyOf", "oneOf", "allOf", "properties", "$defs", "definitions"})
_SILENT: Final = frozenset({"$schema", "additionalProperties", "propertyOrdering"})
"""What says nothing of the values, or is said anyhow."""
_LEAST_ITEMS: Final = (0, 1)
_DEEPEST: Final = 100


def enforceable(schema: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """The schema as Anthropic enforces it."""
    if schema.get("additionalProperties") not in (None, False):
        raise Untranslatable("a schema of an object with any properties")
    return _node(schema, losses, 0)


def _node(schema: Any, losses: Losses, depth: int) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise Untranslatable("a schema nested more than 100 deep")
    if not isinstance(schema, Mapping):
        raise Untranslatable("a schema that allows anything")
    if "$ref" in schema:
        return _reference(schema, losses, depth)
    written = {name: schema[name] for name in schema if name in _KEPT}
    written |= _members(schema, ("$defs", "definitions", "properties"), losses, depth)
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list):
            written["allOf" if name == "allOf" else "anyOf"] = [_node(each, losses, depth + 1) for each in schema[name]]
    if "items" in schema:
        written["items"] = _node(schema["items"], losses, depth + 1)
    if not written.keys() & {"type", "enum", "const", "anyOf", "allOf"}:
        raise Untranslatable("a schema that allows anything")
    if _is_object(schema):
        if schema.get("additionalProperties") not in (None, False):
            raise Untranslatable("a schema of an object with any properties")
        written["additionalProperties"] = False
    return _with_advice(schema, written, losses)


def _reference(schema: Mapping[str, Any], losses: Losses, depth: int) -> dict[str, Any]:
    """A reference stands alone, but for the definitions."""
    definitions = _members(schema, ("$defs", "definitions"), losses, depth)
    for name in schema:
        if name != "$ref" and name not in definitions and name not in _SILENT:
            losses.drop(f"schema.{name}")
    return {"$ref": schema["$ref"], **definitions}


def _members(schema: Mapping[str, Any], names: tuple[str, ...], losses: Losses, depth: int) -> dict[str, Any]:
    return {
        name: {key: _node(each, losses, depth + 1) for key, each in schema[name].items()}
        for name in names
        if isinstance(schema.get(name), Mapping)
    }


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _with_advice(schema: Mapping[str, Any], written: dict[str, Any], losses: Losses) -> dict[str, Any]:
    """Put what is not enforced into the description."""
    advice = []
    for name, value in schema.items():
        if name in _KEPT or name in _SCHEMAS or name in _SILENT:
            continue
        if (name == "format" and value in _STRING_FORMATS) or (name == "minItems" and value in _LEAST_ITEMS):
            written[name] = value
            continue
        losses.drop(f"schema.{name}")
        advice.append(f"{name}: {orjson.dumps(value).decode()}")
    if advice:
        told = f"{{{', '.join(advice)}}}"
        before = schema.get("description")
        written["description"] = f"{before}\n\n{told}" if isinstance(before, str) else told
    return written
