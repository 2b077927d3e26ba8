"""The pure heart of the webhook: a pod comes in, a decision and the operations of a JSON Patch go out.

No I/O, no kopf, no client's types. `decide()` says what happens to a pod, `inject()` makes the patch.
"""

from __future__ import annotations

from llm_operator.inject.claims import admits, may_claim
from llm_operator.inject.decision import TeamLookup, decide
from llm_operator.inject.outcome import Inject, Refuse, Skip, Team
from llm_operator.inject.patch import inject, new_token, wire
from llm_operator.inject.reasons import REFUSED, SKIPPED, Problem, RefuseReason, SkipReason
from llm_operator.inject.settings import InjectionSettings

__all__ = [
    "REFUSED",
    "SKIPPED",
    "Inject",
    "InjectionSettings",
    "Problem",
    "Refuse",
    "RefuseReason",
    "Skip",
    "SkipReason",
    "Team",
    "TeamLookup",
    "admits",
    "decide",
    "inject",
    "may_claim",
    "new_token",
    "wire",
]
