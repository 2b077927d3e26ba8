"""Errors as the applications of each API read them, from a whole answer and from the end of a stream."""

from __future__ import annotations

import re
from typing import Any

import orjson

from tests.integration.proxy.harness import Reply
from tests.integration.proxy.simulated_traffic import Call


def error_of(call: Call, reply: Reply) -> dict[str, Any]:
    """The error of a whole answer; it must be in the shape of the API that was called."""
    document = reply.json()
    if call.shape == "array" and isinstance(document, list):
        (document,) = document
    return _in_shape(call, document)


def last_error(call: Call, reply: Reply) -> dict[str, Any]:
    """The error with which a stream ends."""
    if call.shape == "array":
        return _in_shape(call, reply.json()[-1])
    event = re.split(rb"(?:\r?\n){2}", reply.body.rstrip())[-1]
    document = orjson.loads(event[event.index(b"data: ") + 6 :])
    if document.get("type") == "error" and call.family == "openai":  # the Responses API's is flat
        assert event.startswith(b"event: error\n")
        return {"type": None, **document}
    return _in_shape(call, document)


def _in_shape(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = document["error"]
    expected = {
        "openai": {"message", "type", "param", "code"},
        "anthropic": {"type", "message"},
        "gemini": {"code", "message", "status"},
    }[call.family]
    assert expected <= set(error), error
    assert call.family != "anthropic" or document["type"] == "error"
    return error


def reason_of(call: Call, error: dict[str, Any]) -> str:
    """Our stable code, where this API's applications look for it."""
    if call.family == "openai":
        return str(error["code"])
    if call.family == "anthropic":
        return str(error["details"]["error_code"])
    return str(next(detail["reason"] for detail in error["details"] if "reason" in detail))
