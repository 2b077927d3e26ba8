"""Make one example that satisfies a JSON schema, for tool arguments and structured outputs.

Covers what the three APIs accept in schemas: types, enums, bounds, formats, references, unions, and Gemini's dialect
(upper-case types, `nullable`, bounds told as strings). A `pattern` is met only where one of a few usual words fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]

_WORD: Final = "example"
_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "uuid": "7f0c5f5e-6a0b-4c7a-9d57-0d2f8f6f3a11",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "byte": "ZXhhbXBsZQ==",
}
_PATTERN_CANDIDATES: Final = (
    _WORD, "Example", "EXAMPLE", "example-1", "a", "A", "ab", "AB", "abc", "ABC", "1", "12", "123", "1234", "12345",
    "123456", "1.0", "1.0.0", "A1", "AB-123", "ABC-123", "+15550100", "#a1b2c3", "@example", *_FORMATS.values(),
)  # fmt: skip
_MAXIMUM_DEPTH: Final = 12
"""Beyond it only what is required is made, and unions take their shortest way out: recursive schemas must end."""


class _Deep(Exception):
    """This branch never ends; a union may try its next one."""


def example(schema: Any, *, hint: str = "") -> Any:
    """Return a value that satisfies `schema`; strings without any other rule take `hint`."""
    root = schema if isinstance(schema, dict) else {}
    try:
        return _Maker(root, hint or _WORD).make(root, 0)
    except (_Deep, RecursionError):
        return {}


class _Maker:
    def __init__(self, root: Schema, hint: str) -> None:
        self._root = root
        self._hint = hint

    def make(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict):
            return self._hint
        if depth > 4 * _MAXIMUM_DEPTH:
            raise _Deep
        for told in ("const", "default"):
            if told in schema and (told == "const" or schema[told] is not None):
                return schema[told]
        if schema.get("enum"):
            return schema["enum"][0]
        if "$ref" in schema:
            return self.make({**self._resolve(schema["$ref"]), **_without(schema, "$ref")}, depth + 1)
        if schema.get("allOf"):
            return self.make(self._merged(schema), depth + 1)
        for union in ("anyOf", "oneOf"):
            if schema.get(union):
                return self._first_that_ends(schema[union], _without(schema, union), depth)
        return self._of_type(_type(schema, depth), schema, depth)

    def _of_type(self, kind: str, schema: Schema, depth: int) -> Any:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case _:
                return None

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        wanted = properties if depth <= _MAXIMUM_DEPTH else [name for name in properties if name in required]
        made: dict[str, Any] = {}
        for name in dict.fromkeys([*wanted, *required]):
            try:
                made[name] = self.make(properties.get(name, {"type": "string"}), depth + 1)
            except _Deep:
                if name in required:
                    raise
        return made

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        first = [self.make(item, depth + 1) for item in schema.get("prefixItems") or ()]
        least = int(schema.get("minItems") or 0)
        most = int(schema["maxItems"]) if schema.get("maxItems") is not None else max(least, 1, len(first))
        wanted = max(least, min(most, 1 if depth <= _MAXIMUM_DEPTH else 0))
        items = schema.get("items", {"type": "string"})
        try:
            return first + [self.make(items, depth + 1) for _ in range(wanted - len(first))]
        except _Deep:
            if least:
                raise
            return first

    def _string(self, schema: Schema) -> str:
        text = _FORMATS.get(str(schema.get("format")), self._hint)
        pattern = schema.get("pattern")
        if pattern:
            text = next((word for word in (self._hint, *_PATTERN_CANDIDATES) if _matches(pattern, word)), text)
        text += "x" * (int(schema.get("minLength") or 0) - len(text))
        return text if schema.get("maxLength") is None else text[: int(schema["maxLength"])]

    def _first_that_ends(self, branches: list[Any], rest: Schema, depth: int) -> Any:
        # Deep inside a recursive schema, null comes first: it is the shortest way out.
        ordered = sorted(branches, key=lambda branch: not _is_null(branch)) if depth > _MAXIMUM_DEPTH else branches
        if depth <= _MAXIMUM_DEPTH:
            ordered = sorted(branches, key=_is_null)
        for branch in ordered:
            try:
                return self.make({**rest, **branch} if isinstance(branch, dict) else branch, depth + 1)
            except _Deep:
                continue
        raise _Deep

    def _merged(self, schema: Schema) -> Schema:
        merged = _without(schema, "allOf")
        for part in schema["allOf"]:
            resolved = {**self._resolve(part["$ref"]), **_without(part, "$ref")} if "$ref" in part else part
            properties = {**merged.get("properties", {}), **resolved.get("properties", {})}
            required = [*merged.get("required", []), *resolved.get("required", [])]
            merged = {**merged, **resolved}
            if properties:
                merged["properties"], merged["required"] = properties, required
        return merged

    def _resolve(self, reference: str) -> Schema:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                name = step.replace("~1", "/").replace("~0", "~")
                found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}


def _type(schema: Schema, depth: int) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [each for each in kind if str(each).lower() != "null"] or ["null"]
        kind = "null" if depth > _MAXIMUM_DEPTH and "null" in kind else kinds[0]
    if kind is not None:
        return str(kind).lower()
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _number(schema: Schema, *, whole: bool) -> int | float:
    step = _bound(schema, "multipleOf") or (1 if whole else None)
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    below, above = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    if step is None:
        return _between(_tighter(low, below, max), _tighter(high, above, min))
    if below is not None:
        low = _tighter(low, (below // step + 1) * step, max)
    if above is not None:
        high = _tighter(high, (-(-above // step) - 1) * step, min)
    value = step if low is None else -(-low // step) * step
    if high is not None and value > high:
        value = high // step * step
    return int(value) if whole else float(value)


def _between(low: float | None, high: float | None) -> float:
    if low is not None and high is not None:
        return (low + high) / 2
    if low is not None:
        return low + 1
    return 0.5 if high is None else high - 1


def _tighter(one: float | None, other: float | None, choose: Callable[[float, float], float]) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


def _bound(schema: Schema, name: str) -> float | None:
    value = schema.get(name)
    return None if value is None or isinstance(value, bool) else float(value)


def _matches(pattern: str, word: str) -> bool:
    try:
        return re.search(pattern, word) is not None
    except re.error:
        return False


def _is_null(schema: Any) -> bool:
    return isinstance(schema, dict) and str(schema.get("type", "")).lower() == "null"


def _without(schema: Schema, name: str) -> Schema:
    return {key: value for key, value in schema.items() if key != name}
