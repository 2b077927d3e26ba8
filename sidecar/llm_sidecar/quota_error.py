"""A refusal by a limit, in words for the application: what is used, what is needed, when it is worth another try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.quota_counters import LimitUnit
from llm_sidecar.errors import BRIEF_WAIT_MILLISECONDS, TeamQuotaExceeded
from llm_sidecar.quota.refusal import shown

if TYPE_CHECKING:
    from llm_sidecar.quota.refusal import QuotaRefusal
    from llm_sidecar.record import RequestRecord

_UNIT_WORDS: Final = {
    LimitUnit.REQUESTS: "requests",
    LimitUnit.TOKENS: "tokens",
    LimitUnit.COST: "USD",
    LimitUnit.CONCURRENT: "concurrent requests",
}


def told_to_application(record: RequestRecord, refusal: QuotaRefusal) -> TeamQuotaExceeded:
    """The error that the application sees; notes the limit in the record."""
    record.refused_limit = refusal.limit_name
    room = max(0, refusal.limit - refusal.used - refusal.reserved)
    record.quota_remaining = f"{refusal.limit_name}={shown(refusal.unit, room)}"
    error = TeamQuotaExceeded(
        _message(record.team, refusal),
        details=_details(refusal),
        retry_after_milliseconds=None if refusal.never_fits else refusal.retry_after_ms,
    )
    error.should_retry = not refusal.never_fits and refusal.retry_after_ms <= BRIEF_WAIT_MILLISECONDS
    return error


def _message(team: str, refusal: QuotaRefusal) -> str:
    unit = _UNIT_WORDS[refusal.unit]
    window = f" per {refusal.per.lower()}" if refusal.per is not None else ""
    used, reserved = shown(refusal.unit, refusal.used), shown(refusal.unit, refusal.reserved)
    figures = (
        f"limit {refusal.limit_name!r} of team {team}: {used} {unit} used and {reserved} reserved of "
        f"{shown(refusal.unit, refusal.limit)}{window}; this request needs {shown(refusal.unit, refusal.requested)}"
    )
    if not refusal.never_fits:
        wait_seconds = -(-refusal.retry_after_ms // 1000)
        if refusal.used + refusal.requested <= refusal.limit:  # how long others still run, nobody knows
            return f"{figures}. Running requests hold the rest: try again in about {wait_seconds} s"
        return f"{figures}. The window ends in {wait_seconds} s"
    if refusal.fitting_output_tokens is None:
        return f"{figures}, which can never fit: send less input"
    return (
        f"{figures}, which can never fit: ask for at most {refusal.fitting_output_tokens} output tokens (the team's "
        "spec.optimization.maxOutputTokens can see to it), or send less input"
    )


def _details(refusal: QuotaRefusal) -> dict[str, object]:
    details: dict[str, object] = {
        "limit": refusal.limit_name,
        "unit": "nano_usd" if refusal.unit is LimitUnit.COST else str(refusal.unit),
        "maximum": refusal.limit,
        "used": refusal.used,
        "reserved": refusal.reserved,
        "requested": refusal.requested,
    }
    if refusal.per is not None:
        details |= {"per": str(refusal.per), "resets_at_ms": refusal.resets_at_ms}
    if refusal.fitting_output_tokens is not None:
        details["fitting_output_tokens"] = refusal.fitting_output_tokens
    return details
