"""Keeping what the middle has no field for, so that it is said again; see `conversation.py` for `extra`."""

from __future__ import annotations

from typing import Any

from llm_sidecar.translation.parts import NOTHING, Document


def nested(name: str, rest: Document) -> dict[str, Any]:
    """What is left over of the object `name` inside of another. If it only says `null`, it is a matter of form."""
    if not rest:
        return {}
    return {name if any(value is not None for value in rest.values()) else f"${name}": dict(rest)}


def nested_rest(extra: Document, name: str) -> Document:
    """What `nested` kept."""
    found: Document = extra.get(name) or extra.get(f"${name}") or NOTHING
    return found


def restore(document: dict[str, Any], extra: Document, *without: str) -> dict[str, Any]:
    """Say again what was left over of this very object; fields that begin with `$` tell forms and are no fields."""
    document.update({name: value for name, value in extra.items() if name[:1] != "$" and name not in without})
    return document
