"""The Event of a threshold that was crossed. Pure.

The store tells each crossing once for the whole fleet. The Event's name is made of what was crossed, so that a
controller that starts again, or one of a store that forgot, cannot write it a second time.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from llm_operator.events import event_document
from llm_operator.kube import TEAM_QUOTA, Document
from llm_operator.reconcile.objects import ObservedTeam
from llm_operator.reconcile.usage_reader import Alert
from llm_operator.reconcile.usage_status import near_threshold, time_text
from llm_sidecar.contract.limit_usage import FIELD_OF_UNIT, amount_text, limit_amount

CROSSED: Final = "QuotaThresholdCrossed"
EXHAUSTED: Final = "QuotaExhausted"


def is_known(alert: Alert, team: ObservedTeam) -> bool:
    """True where the TeamQuota has this limit and this threshold: anyone with the Redis URL can write alerts."""
    if team.resource is None:
        return False
    spec = team.resource.spec
    limits = {(one.name, limit_amount(one)[0], str(one.per)) for one in spec.limits}
    return (alert.limit, alert.unit, alert.per) in limits and alert.percent in spec.alerts.thresholds_percent


def alert_event(alert: Alert, team: ObservedTeam, *, reset: int, now: str) -> Document:
    """The Event. `reset` is how much of the window was reset before: after that a threshold can be crossed again."""
    thresholds = team.resource.spec.alerts.thresholds_percent if team.resource is not None else ()
    is_end = alert.percent >= 100
    used, maximum = (amount_text(alert.unit, amount) for amount in (alert.used, alert.maximum))
    counts = f"{FIELD_OF_UNIT[alert.unit]} per {alert.per}"
    message = (
        f"Team {team.key}: limit {alert.limit} ({counts}) reached {alert.percent} %: "
        f"{used} of {maximum} are used. It resets at {time_text(alert.end_ms)}."
    )
    return event_document(
        TEAM_QUOTA,
        team.key,
        uid=team.uid,
        warns=is_end or alert.percent >= near_threshold(thresholds),
        reason=EXHAUSTED if is_end else CROSSED,
        message=message,
        now=now,
        name=_name(alert, team, reset),
    )


def _name(alert: Alert, team: ObservedTeam, reset: int) -> str:
    crossed = (
        *(team.uid, alert.limit, alert.unit, alert.per, alert.start_ms, alert.end_ms),
        *(alert.percent, alert.maximum, reset),
    )
    digest = sha256("|".join(str(word) for word in crossed).encode()).hexdigest()
    return f"{team.key.name}.quota.{digest[:16]}"
