"""Whether a provider works, from the controller's own probe and the proxies' reports to one condition. Pure.

It tells people and alerts; no proxy obeys it, because some of what it rests on anyone with the Redis URL can forge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from llm_operator.reconcile.traffic import Traffic
from llm_operator.status import Condition, ConditionType, Reason, Truth
from llm_sidecar.contract.provider_reports import FAILURE_WORDS

MIN_FAILURES: Final = 5
"""Fewer are chance."""
REFUTING_REPORTERS: Final = 2
"""So many must agree before they count against what the controller's own probe says."""
FAILED_PROBES: Final = 2
"""One that fails alone is chance."""


class ProbeOutcome(StrEnum):
    """What a probe came to."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KEY_REFUSED = "key_refused"
    INCONCLUSIVE = "inconclusive"
    """It answered, but not the question: without a list of models, or too busy for it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe."""

    outcome: ProbeOutcome
    message: str
    """A sentence. Holds nothing of the answer but its status."""
    milliseconds: float | None = None
    """Until the answer, where there was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthFacts:
    """All that health depends on."""

    probe: Probe | None
    """The last one; None while there is none, or where the mode is Passive."""
    failed_probes: int = 0
    """In a row."""
    is_passive: bool
    traffic: Traffic | None
    """None where it cannot be read."""


def health(facts: HealthFacts) -> Condition:
    """The condition. Its figures are rounded, so that it changes only when there is something to see."""
    traffic = facts.traffic or Traffic()
    outcome = facts.probe.outcome if facts.probe is not None and not facts.is_passive else ProbeOutcome.INCONCLUSIVE
    if outcome is ProbeOutcome.SUCCEEDED:
        return _probe_succeeded(facts, traffic)
    if outcome is ProbeOutcome.KEY_REFUSED:
        return _key_refused(facts, traffic)
    if outcome is ProbeOutcome.FAILED:
        return _probe_failed(facts, traffic)
    return _by_reports(facts, traffic)


def _probe_succeeded(facts: HealthFacts, traffic: Traffic) -> Condition:
    if _most_fail(traffic) and traffic.failing >= REFUTING_REPORTERS:
        return _condition(Truth.FALSE, Reason.ERROR_RATE_HIGH, facts)
    return _condition(Truth.TRUE, Reason.PROBE_SUCCEEDED, facts)


def _key_refused(facts: HealthFacts, traffic: Traffic) -> Condition:
    if traffic.reporters and not _most_fail(traffic):
        # A key that may not list models may still answer requests. A request that was refused its key counts nowhere.
        return _condition(Truth.TRUE, Reason.PASSIVE_ONLY, facts)
    return _condition(Truth.FALSE, Reason.KEY_REFUSED, facts)


def _probe_failed(facts: HealthFacts, traffic: Traffic) -> Condition:
    working = traffic.reporters - traffic.failing
    if working >= REFUTING_REPORTERS and not _most_fail(traffic):
        # The network of the controller is another than that of the pods, and theirs is the one that counts.
        return _condition(Truth.TRUE, Reason.PASSIVE_ONLY, facts)
    if facts.failed_probes < FAILED_PROBES and not _most_fail(traffic):
        return _condition(Truth.UNKNOWN, Reason.NO_DATA, facts)
    return _condition(Truth.FALSE, Reason.PROBE_FAILED, facts)


def _by_reports(facts: HealthFacts, traffic: Traffic) -> Condition:
    if not traffic.reporters:
        return _condition(Truth.UNKNOWN, Reason.NO_DATA, facts)
    if _most_fail(traffic):
        return _condition(Truth.FALSE, Reason.ERROR_RATE_HIGH, facts)
    return _condition(Truth.TRUE, Reason.PASSIVE_ONLY, facts)


def _most_fail(traffic: Traffic) -> bool:
    return traffic.failing * 2 > traffic.reporters and traffic.failures >= MIN_FAILURES


def _condition(truth: Truth, reason: Reason, facts: HealthFacts) -> Condition:
    message = f"{_told_by_probe(facts)} {_told_by_proxies(facts)}"
    return Condition(ConditionType.HEALTHY, truth, reason, message)


def _told_by_probe(facts: HealthFacts) -> str:
    if facts.is_passive:
        return "It is not probed (healthCheck.mode: Passive)."
    if facts.probe is None:
        return "It is being probed."
    if facts.probe.outcome is ProbeOutcome.SUCCEEDED and facts.probe.milliseconds is not None:
        return f"The controller's probe was answered in about {rounded(facts.probe.milliseconds)} ms."
    return f"The controller's probe: {facts.probe.message}"


def _told_by_proxies(facts: HealthFacts) -> str:
    traffic = facts.traffic
    if traffic is None:
        return "The proxies' reports are not at hand."
    if not traffic.reporters:
        return "No proxy asked it in the last minute."
    asked = "One proxy" if traffic.reporters == 1 else f"About {rounded(traffic.reporters)} proxies"
    text = f"{asked} asked it in the last minute: {_percent(traffic.error_share)} of attempts failed"
    if traffic.worst is not None:
        text += f", mostly by {FAILURE_WORDS[traffic.worst]}"
    if traffic.milliseconds is not None:
        text += f"; answers began after about {rounded(traffic.milliseconds)} ms"
    return f"{text}."


def rounded(value: float) -> int:
    """The nearest below of 1, 2, 5, 10, 20, 50, … and 0: figures that do not change with every breath."""
    step, found = 1, 0
    while step <= value:
        found = next(factor * step for factor in (5, 2, 1) if factor * step <= value)
        step *= 10
    return found


def _percent(share: float) -> str:
    if share <= 0:
        return "0 %"
    percent = rounded(share * 100)
    return f"about {percent} %" if percent else "less than 1 %"


def remembered(status: Mapping[str, Any], generation: int) -> Condition | None:
    """What was written about this spec by a controller before this one; None where that is nothing."""
    for one in status.get("conditions") or ():
        if not isinstance(one, Mapping) or one.get("type") != ConditionType.HEALTHY:
            continue
        try:
            truth, reason = Truth(str(one.get("status"))), Reason(str(one.get("reason")))
        except ValueError:
            return None
        if one.get("observedGeneration") == generation:
            return Condition(ConditionType.HEALTHY, truth, reason, str(one.get("message") or ""))
    return None
