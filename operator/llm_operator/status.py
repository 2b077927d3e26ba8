"""Conditions: what they say, and when a status has to be written. Pure.

Reasons are closed sets. Messages name the field and the fix, and never hold what a provider answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

MESSAGE_CHARACTERS: Final = 2048
UNTOLD: Final = frozenset({"usageReadAt"})
"""Fields that change with every look, and say nothing by themselves."""


class ConditionType(StrEnum):
    """What a condition is about."""

    ACCEPTED = "Accepted"
    CREDENTIALS_VALID = "CredentialsValid"
    HEALTHY = "Healthy"
    PROGRAMMED = "Programmed"
    NEAR_LIMIT = "NearLimit"
    EXHAUSTED = "Exhausted"
    READY = "Ready"


class Reason(StrEnum):
    """Why a condition holds or does not. The reference pages explain each."""

    # Accepted
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_TYPE = "UnknownType"
    PROVIDER_NOT_FOUND = "ProviderNotFound"
    PROVIDER_NOT_ALLOWED = "ProviderNotAllowed"
    # CredentialsValid
    KEY_ACCEPTED = "KeyAccepted"
    NOT_NEEDED = "NotNeeded"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, no secret
    SECRET_NOT_LABELLED = "SecretNotLabelled"  # noqa: S105 - the same
    SECRET_NOT_READABLE = "SecretNotReadable"  # noqa: S105 - the same
    KEY_NOT_FOUND = "KeyNotFound"
    INVALID_VALUE = "InvalidValue"
    KEY_REJECTED = "KeyRejected"
    ADDRESS_REFUSED = "AddressRefused"
    PROVIDER_UNREACHABLE = "ProviderUnreachable"
    NOT_CHECKED = "NotChecked"
    # Healthy
    PROBE_SUCCEEDED = "ProbeSucceeded"
    PROBE_FAILED = "ProbeFailed"
    KEY_REFUSED = "KeyRefused"
    ERROR_RATE_HIGH = "ErrorRateHigh"
    PASSIVE_ONLY = "PassiveOnly"
    NO_DATA = "NoData"
    # Programmed
    PUBLISHED = "Published"
    NOT_CLAIMED = "NotClaimed"
    NOT_USABLE = "NotUsable"
    PENDING = "Pending"
    PUBLISH_FAILED = "PublishFailed"
    # NearLimit
    THRESHOLD_REACHED = "ThresholdReached"
    BELOW_THRESHOLD = "BelowThreshold"
    # Exhausted
    LIMIT_REACHED = "LimitReached"
    ROOM_LEFT = "RoomLeft"
    # Both
    NO_LIMITS = "NoLimits"
    NO_STORE = "NoStore"
    NOT_READ = "NotRead"
    STORE_UNAVAILABLE = "StoreUnavailable"
    # Ready
    READY = "Ready"


class Truth(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, without its time."""

    type: ConditionType
    truth: Truth
    reason: Reason
    message: str

    @property
    def holds(self) -> bool:
        """True if it is `True`."""
        return self.truth is Truth.TRUE


def ready(conditions: Sequence[Condition]) -> Condition:
    """The summary: everything holds, or the first thing that does not; a plain no counts before an unknown."""
    for truth in (Truth.FALSE, Truth.UNKNOWN):
        for condition in conditions:
            if condition.truth is truth:
                return Condition(ConditionType.READY, truth, condition.reason, condition.message)
    return Condition(ConditionType.READY, Truth.TRUE, Reason.READY, "In use.")


def status_document(
    conditions: Iterable[Condition],
    *,
    generation: int,
    previous: Mapping[str, Any],
    now: str,
    figures: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The status to write, or None where the one that is there says the same. `now` is RFC 3339.

    `figures` are further fields; one that is None goes. Those of `UNTOLD` alone are no reason to write.
    """
    before = {one.get("type"): one for one in previous.get("conditions") or () if isinstance(one, Mapping)}
    documents = [_document(one, generation, before.get(one.type), now) for one in conditions]
    status = {"observedGeneration": generation, "conditions": documents, **(figures or {})}
    return None if _told(merged(previous, status)) == _told(previous) else status


def merged(previous: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    """The status as it is after `status` was written as a merge patch: fields that are None go, others stay."""
    return _without_none({**previous, **status})


def _told(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in UNTOLD}


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }


def _document(condition: Condition, generation: int, before: Mapping[str, Any] | None, now: str) -> dict[str, Any]:
    has_changed = before is None or before.get("status") != condition.truth
    changed_at = now if has_changed or before is None else before.get("lastTransitionTime", now)
    return {
        "type": str(condition.type),
        "status": str(condition.truth),
        "observedGeneration": generation,
        "lastTransitionTime": changed_at,
        "reason": str(condition.reason),
        "message": condition.message[:MESSAGE_CHARACTERS],
    }


def transition(condition: Condition, previous: Mapping[str, Any]) -> bool:
    """True where this condition's status or reason is news to whoever reads the object's events."""
    if condition.reason in {Reason.PENDING, Reason.NOT_CHECKED}:
        return False
    for before in previous.get("conditions") or ():
        if isinstance(before, Mapping) and before.get("type") == condition.type:
            return bool(before.get("status") != condition.truth or before.get("reason") != condition.reason)
    return condition.truth is not Truth.UNKNOWN
