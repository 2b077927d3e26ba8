"""Reads single fields of documents whose authors owe us nothing: a field of another type counts as absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from llm_sidecar.formats.base import MalformedRequest


def load_mapping(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`, or None if it is something else or no JSON."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def mapping(document: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first of these members that is an object; an empty one if none is."""
    for name in names:
        value = document.get(name)
        if isinstance(value, dict):
            return value
    return {}


def mappings(document: Mapping[str, Any], *names: str) -> list[dict[str, Any]]:
    """The objects in the first of these members that is an array."""
    for name in names:
        value = document.get(name)
        if isinstance(value, list):
            return [item for item in value if isinstance(item, dict)]
    return []


def text(document: Mapping[str, Any], name: str) -> str | None:
    """The member if it is a string."""
    value = document.get(name)
    return value if isinstance(value, str) else None


def count(document: Mapping[str, Any], *names: str) -> int | None:
    """The first of these members that is a whole number of zero or more; `True` is no number here."""
    for name in names:
        value = document.get(name)
        if type(value) is int and value >= 0:
            return value
    return None


def is_zero(value: object) -> bool:
    """True for the number 0, in either spelling."""
    return type(value) in (int, float) and value == 0


def required_model(document: Mapping[str, Any]) -> str:
    """The request's `model`; raises `MalformedRequest`."""
    model = document.get("model")
    if isinstance(model, str) and model:
        return model
    if "model" in document:
        raise MalformedRequest("`model` must be a string that is not empty.")
    raise MalformedRequest("`model` is missing: say which model should answer.")


def nested_mappings(value: object) -> Iterator[dict[str, Any]]:
    """Every object within `value`, itself included. Keeps its own stack: nesting costs no recursion."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
