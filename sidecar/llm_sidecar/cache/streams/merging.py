"""What the languages' assemblers share: fields that several frames of one stream tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

Document = Mapping[str, Any]


class NotUnderstood(Exception):
    """A stream or an answer holds what cannot be carried over for certain."""


def merge(into: dict[str, Any], told: Document, *, without: Collection[str] = ()) -> None:
    """Take over fields that frames repeat. Nothing said (null, empty) gives way to something; two things clash."""
    for name, value in told.items():
        if name in without:
            continue
        known = into.get(name)
        if known and known == value:  # as nearly all that frames repeat
            continue
        if isinstance(known, dict) and isinstance(value, dict):
            merge(known, value)
        elif not known:
            into[name] = dict(value) if isinstance(value, dict) else value
        elif value and value != known:
            raise NotUnderstood(f"frames tell different values of `{name}`")


def grow(into: dict[str, Any], name: str, value: Any) -> None:
    """Append a piece of text; null says that there may be none."""
    if value is None:
        into.setdefault(name, None)
    elif isinstance(value, str):
        into[name] = (into.get(name) or "") + value
    else:
        raise NotUnderstood(f"`{name}` is no text")


def an_object(value: Any, name: str) -> dict[str, Any]:
    """The value, which has to be an object."""
    if not isinstance(value, dict):
        raise NotUnderstood(f"`{name}` is no object")
    return value


def a_list(value: Any, name: str) -> list[Any]:
    """The value, which has to be a list."""
    if not isinstance(value, list):
        raise NotUnderstood(f"`{name}` is no list")
    return value


def the_only(value: Any, name: str) -> dict[str, Any]:
    """The only element of a list, an object that is not numbered, or numbered 0."""
    if isinstance(value, list) and len(value) == 1:
        only = value[0]
        if isinstance(only, dict) and only.get("index", 0) == 0:
            return only
    raise NotUnderstood(f"`{name}` is not exactly one, an object")
