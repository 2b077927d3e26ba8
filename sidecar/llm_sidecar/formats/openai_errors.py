"""Errors as the OpenAI APIs tell them: one shape for chat, responses and embeddings, plain and in streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from llm_sidecar.formats.base import StreamError
from llm_sidecar.formats.fields import text

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}

# Providers put the reason into `code`, into `type`, or into both; servers that only resemble OpenAI send a number.
_STATUSES: Final[Mapping[str, int]] = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "insufficient_quota": 429,
    "credit_balance_exhausted": 429,
    "slow_down": 429,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "content_filter": 400,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "timeout": 504,
}


def error_object(status: int, code: str, message: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """The inner object of an error of our own; `details`, if any, stand beside the four fields that OpenAI defines."""
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    if details:
        error["details"] = dict(details)
    return error


def error_body(status: int, code: str, message: str, details: Mapping[str, Any]) -> bytes:
    """A whole error answer."""
    return orjson.dumps({"error": error_object(status, code, message, details)})


def read_stream_error(error: object) -> StreamError:
    """The meaning of an error that a provider sent inside a stream, be it an object or a bare string."""
    if not isinstance(error, dict):
        return StreamError(500, "server_error", error if isinstance(error, str) else "")
    told = error.get("code")
    kind = text(error, "type") or ""
    code = told if isinstance(told, str) and told else kind
    return StreamError(_status(told, kind), code or "server_error", text(error, "message") or "")


def _status(code: object, kind: str) -> int:
    if isinstance(code, str):
        # OpenAI-compatible gateways tell the status of the server behind them, some as a string.
        if code in _STATUSES:
            return _STATUSES[code]
        code = int(code) if code.isascii() and code.isdigit() and len(code) == 3 else None
    if type(code) is int and 400 <= code <= 599:
        return code
    return _STATUSES.get(kind, 500)
