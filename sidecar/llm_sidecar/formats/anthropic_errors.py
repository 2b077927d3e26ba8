"""Errors as Anthropic tells them: `{"type": "error", "error": {type, message, details}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from llm_sidecar.formats.fields import mapping
from llm_sidecar.formats.retry_hints import RetryHeaders
from llm_sidecar.formats.told_error import FailureKind, ToldError, is_too_long, kind_of_status, message_in, word

_BY_DETAIL: Final[Mapping[str, FailureKind]] = {
    "enforced_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "contract_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "linked_organization_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "linked_organization_billing_unavailable": FailureKind.QUOTA_EXHAUSTED,
    "ramp_limit_exceeded": FailureKind.RATE_LIMITED,
    "request_body_too_large_after_decoding": FailureKind.TOO_LONG,
    "organization_on_hold": FailureKind.AUTHENTICATION,
    "organization_type_not_supported": FailureKind.AUTHENTICATION,
    "parent_organization_required": FailureKind.AUTHENTICATION,
    "cmek_context_unavailable": FailureKind.AUTHENTICATION,
    "cmek_key_disabled": FailureKind.AUTHENTICATION,
    "cmek_key_network_blocked": FailureKind.AUTHENTICATION,
    "cmek_key_unreachable": FailureKind.AUTHENTICATION,
}
_BY_TYPE: Final[Mapping[str, FailureKind]] = {
    "authentication_error": FailureKind.AUTHENTICATION,
    "billing_error": FailureKind.QUOTA_EXHAUSTED,
    "permission_error": FailureKind.AUTHENTICATION,
    "not_found_error": FailureKind.NOT_FOUND,
    "request_too_large": FailureKind.TOO_LONG,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "timeout_error": FailureKind.TIMEOUT,
    "overloaded_error": FailureKind.OVERLOADED,
}
# Much comes as a plain `invalid_request_error`, which only its words tell apart.
_SPENT: Final = re.compile(
    r"credit balance is too low|reached your specified [\w ]{0,20}usage limits|extra usage is required", re.IGNORECASE
)
_FILTERED: Final = re.compile(r"blocked by content filtering", re.IGNORECASE)
_SHUT: Final = re.compile(r"organization has been disabled|credential is only authorized for", re.IGNORECASE)


def read_error(error: Mapping[str, Any], status: int, headers: RetryHeaders) -> ToldError:
    """The meaning of an error answer's inner object."""
    detail, kind_word = word(mapping(error, "details").get("error_code")), word(error.get("type"))
    message = message_in(error)
    kind = _kind(status, detail=detail, kind_word=kind_word, message=message)
    hint = headers.retry_after_seconds()
    if hint is None and kind is FailureKind.RATE_LIMITED:
        hint = headers.anthropic_reset_seconds()
    return ToldError(status, kind, detail or kind_word, message, hint)


def _kind(status: int, *, detail: str, kind_word: str, message: str) -> FailureKind:
    if detail in _BY_DETAIL:
        return _BY_DETAIL[detail]
    if status < 500:
        if _SPENT.search(message):
            return FailureKind.QUOTA_EXHAUSTED
        if _FILTERED.search(message):
            return FailureKind.CONTENT_POLICY
        if _SHUT.search(message):
            return FailureKind.AUTHENTICATION
        # "input length and `max_tokens` exceed context limit" is what asks for too much at the far end.
        if is_too_long(message):
            return FailureKind.TOO_LONG
    return _BY_TYPE.get(kind_word) or kind_of_status(status)
