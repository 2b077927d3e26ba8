"""Errors as Google tells them: `{"error": {code, message, status, details: [{"@type": …}]}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.formats.fields import mapping, mappings, text
from llm_sidecar.formats.retry_hints import RetryHeaders, duration_seconds
from llm_sidecar.formats.told_error import FailureKind, ToldError, is_too_long, kind_of_status, message_in, word

CANONICAL: Final = frozenset(
    {
        "ABORTED",
        "ALREADY_EXISTS",
        "CANCELLED",
        "DATA_LOSS",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
        "UNIMPLEMENTED",
        "UNKNOWN",
    }
)
"""The names of Google's error codes: who uses one in `status` tells errors as Google does, whatever API it serves."""

_BY_NAME: Final[Mapping[str, FailureKind]] = {
    "NOT_FOUND": FailureKind.NOT_FOUND,
    "UNIMPLEMENTED": FailureKind.NOT_FOUND,
    "UNAUTHENTICATED": FailureKind.AUTHENTICATION,
    "PERMISSION_DENIED": FailureKind.AUTHENTICATION,
    "DEADLINE_EXCEEDED": FailureKind.TIMEOUT,
    "ABORTED": FailureKind.SERVER,
}
_KEY_REASONS: Final = ("API_KEY_", "SERVICE_DISABLED", "CONSUMER_", "BILLING_", "ACCESS_TOKEN_")
_KEY: Final = re.compile(r"\bAPI key (?:not (?:valid|found)|expired|was reported)", re.IGNORECASE)
_BILLING: Final = re.compile(r"\bbilling\b|credits? (?:are|is) depleted|spending cap", re.IGNORECASE)
_REGION: Final = re.compile(r"\b(?:location|country|region)\b[^.]{0,40}\bnot (?:supported|available)", re.IGNORECASE)
_FREE_TIER: Final = re.compile(r"free tier is not available", re.IGNORECASE)
_NOT_THERE: Final = re.compile(r"permission to access the file|CachedContent not found", re.IGNORECASE)
_NONE_GRANTED: Final = re.compile(r"\blimit: 0\b")


def read_error(error: Mapping[str, Any], status: int, headers: RetryHeaders) -> ToldError:
    """The meaning of an error answer's inner object."""
    name, message = text(error, "status") or "", message_in(error)
    details = mappings(error, "details")
    reason = next((found for detail in details if (found := word(detail.get("reason")))), "")
    kind = _kind(name, status, reason=reason, message=message, details=details)
    hint = _retry_delay(details)
    hint = headers.retry_after_seconds() if hint is None else hint
    return ToldError(status, kind, reason or word(name), message, hint)


def _kind(name: str, status: int, *, reason: str, message: str, details: list[dict[str, Any]]) -> FailureKind:
    if reason.startswith(_KEY_REASONS) or (status < 500 and _KEY.search(message)):
        return FailureKind.QUOTA_EXHAUSTED if reason.startswith("BILLING_") else FailureKind.AUTHENTICATION
    if name == "RESOURCE_EXHAUSTED" or status == 429:
        return _exhausted(message, details)
    if name == "FAILED_PRECONDITION":
        return _precondition(status, message)
    if status < 500 and _NOT_THERE.search(message):
        return FailureKind.INVALID_REQUEST  # a file or a cache of another key: no other provider has it either
    if status < 500 and is_too_long(message):
        return FailureKind.TOO_LONG
    return _BY_NAME.get(name) or kind_of_status(status)


def _precondition(status: int, message: str) -> FailureKind:
    """Our account or region; but also a file of the application's that is still being processed."""
    if _REGION.search(message) or _FREE_TIER.search(message):
        return FailureKind.AUTHENTICATION
    return FailureKind.QUOTA_EXHAUSTED if _BILLING.search(message) else kind_of_status(status)


def _exhausted(message: str, details: list[dict[str, Any]]) -> FailureKind:
    """A quota per minute passes. One per day does not, nor does one of nothing: a model outside of the free tier."""
    violations = [one for detail in details for one in mappings(detail, "violations")]
    lasting = any("PerDay" in (text(one, "quotaId") or "") or one.get("quotaValue") == "0" for one in violations)
    quota_limit = [text(mapping(detail, "metadata"), "quota_limit") or "" for detail in details]
    lasting = lasting or any("PerDay" in limit for limit in quota_limit)
    if lasting or _NONE_GRANTED.search(message) or re.search(r"depleted|spending cap", message):
        return FailureKind.QUOTA_EXHAUSTED
    return FailureKind.RATE_LIMITED


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """`RetryInfo.retryDelay`: protobuf's JSON writes it as `52s` or `0.5s`."""
    for detail in details:
        if (text(detail, "@type") or "").endswith("google.rpc.RetryInfo"):
            return duration_seconds(text(detail, "retryDelay") or "")
    return None
