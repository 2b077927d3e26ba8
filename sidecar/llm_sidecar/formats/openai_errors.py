"""Errors as the OpenAI APIs tell them: one shape for chat, responses and embeddings, plain and in streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from llm_sidecar.formats.base import StreamError
from llm_sidecar.formats.fields import mapping, text
from llm_sidecar.formats.retry_hints import RetryHeaders, hint_in_message
from llm_sidecar.formats.told_error import FailureKind, ToldError, is_too_long, kind_of_status, message_in, word

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

_POLICY: Final = FailureKind.CONTENT_POLICY
_KINDS: Final[Mapping[str, FailureKind]] = {
    "insufficient_quota": FailureKind.QUOTA_EXHAUSTED,
    "credit_balance_exhausted": FailureKind.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "billing_not_active": FailureKind.QUOTA_EXHAUSTED,
    "authentication_error": FailureKind.AUTHENTICATION,
    "invalid_api_key": FailureKind.AUTHENTICATION,
    "account_deactivated": FailureKind.AUTHENTICATION,
    "permission_error": FailureKind.AUTHENTICATION,
    "unsupported_country_region_territory": FailureKind.AUTHENTICATION,
    "data_residency_mismatch": FailureKind.AUTHENTICATION,
    "not_found_error": FailureKind.NOT_FOUND,
    "model_not_found": FailureKind.NOT_FOUND,
    "model_decommissioned": FailureKind.NOT_FOUND,  # Groq
    "deploymentnotfound": FailureKind.NOT_FOUND,  # Azure
    # What lives at one provider is nowhere else either.
    "previous_response_not_found": FailureKind.INVALID_REQUEST,
    "context_length_exceeded": FailureKind.TOO_LONG,
    "exceed_context_size_error": FailureKind.TOO_LONG,  # llama.cpp
    "request_too_large": FailureKind.TOO_LONG,
    "string_above_max_length": FailureKind.TOO_LONG,
    "content_filter": _POLICY,
    "content_policy_violation": _POLICY,
    "responsibleaipolicyviolation": _POLICY,  # Azure
    "invalid_prompt": _POLICY,
    "moderation_blocked": _POLICY,
    "image_content_policy_violation": _POLICY,
    "bio_policy": _POLICY,
    "misalignment_policy_violation": _POLICY,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "requests": FailureKind.RATE_LIMITED,
    "tokens": FailureKind.RATE_LIMITED,
    "slow_down": FailureKind.RATE_LIMITED,
    "overloaded_error": FailureKind.OVERLOADED,
    "engine_overloaded": FailureKind.OVERLOADED,
    "server_is_overloaded": FailureKind.OVERLOADED,
    "service_unavailable": FailureKind.OVERLOADED,
    "service_unavailable_error": FailureKind.OVERLOADED,
    "resource_unavailable": FailureKind.OVERLOADED,  # the flexible tier has no room: a 429
    "timeout": FailureKind.TIMEOUT,
    "request_timeout": FailureKind.TIMEOUT,
    "vector_store_timeout": FailureKind.TIMEOUT,
}
"""By `code`, where that is not known by `type`. Words that say no more than the status does are left out."""


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


def read_error(error: Mapping[str, Any], status: int, headers: RetryHeaders) -> ToldError:
    """The meaning of an error answer's inner object."""
    code, kind_word, message = word(error.get("code")), word(error.get("type")), message_in(error)
    kind = _kind(error, status, code=code, kind_word=kind_word, message=message)
    hint = headers.retry_after_seconds()
    if hint is None and kind is FailureKind.RATE_LIMITED:
        hint = hint_in_message(message)
        hint = headers.openai_reset_seconds() if hint is None else hint
    return ToldError(status, kind, code or kind_word, message, hint)


def _kind(error: Mapping[str, Any], status: int, *, code: str, kind_word: str, message: str) -> FailureKind:
    # "Request too large for gpt-… on tokens per min" is a 429 `rate_limit_exceeded` that no waiting helps.
    if status < 500 and is_too_long(message):
        return FailureKind.TOO_LONG
    if "flagged_input" in mapping(error, "metadata"):  # OpenRouter tells moderation as a 403
        return FailureKind.CONTENT_POLICY
    inner = word(mapping(error, "innererror").get("code"))
    for one in (code, inner, kind_word):
        if one.lower() in _KINDS:
            return _KINDS[one.lower()]
    return kind_of_status(status)
