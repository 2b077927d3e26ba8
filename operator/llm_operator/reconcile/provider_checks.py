"""An LLMProvider's conditions: a list of small checks, each from what is known to one condition. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from llm_operator.reconcile.credentials import Credentials, CredentialsProblem
from llm_operator.reconcile.key_check import Verdict
from llm_operator.reconcile.objects import Claim, Key, ObservedProvider
from llm_operator.render import known_types
from llm_operator.status import Condition, ConditionType, Reason, Truth, ready
from llm_sidecar.contract.violations import nearest

SHOWN_NAMESPACES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a claim the last time it was looked at."""

    providers: frozenset[Key] = frozenset()
    """Those that its document holds."""
    is_allowed: bool = True
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """How far publishing is."""

    outcomes: Mapping[Claim, Outcome]
    is_pending: bool
    """A claim that may concern the object was not looked at yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """All that a provider's conditions depend on."""

    provider: ObservedProvider
    credentials: Credentials | CredentialsProblem
    verdict: Verdict | None
    health: Condition
    publishing: Publishing


def provider_conditions(facts: ProviderFacts) -> tuple[Condition, ...]:
    """All conditions, the summary last. Health is no part of it: a provider that is ready may fail for a while."""
    conditions = tuple(check(facts) for check in _CHECKS)
    return (*conditions, facts.health, ready(conditions))


def is_accepted(provider: ObservedProvider) -> bool:
    """Whether the spec can be used."""
    return _accepted_spec(provider).holds


def _accepted(facts: ProviderFacts) -> Condition:
    return _accepted_spec(facts.provider)


def _accepted_spec(provider: ObservedProvider) -> Condition:
    if provider.resource is None:
        message = "; ".join(provider.problems)
        return Condition(ConditionType.ACCEPTED, Truth.FALSE, Reason.INVALID_SPEC, message)
    written = provider.resource.spec.type
    if written not in known_types():
        known = sorted(known_types())
        meant = nearest(written, known)
        fix = f"did you mean {meant}?" if meant else f"write one of {', '.join(known)}, or install the package with it"
        message = f"spec.type: no provider of type {written} is registered. Fix: {fix}"
        return Condition(ConditionType.ACCEPTED, Truth.FALSE, Reason.UNKNOWN_TYPE, message)
    return Condition(ConditionType.ACCEPTED, Truth.TRUE, Reason.VALID, "The spec is valid.")


def _credentials_valid(facts: ProviderFacts) -> Condition:
    kind = ConditionType.CREDENTIALS_VALID
    if not is_accepted(facts.provider):
        return Condition(kind, Truth.UNKNOWN, Reason.NOT_CHECKED, "The spec must be accepted first.")
    if isinstance(facts.credentials, CredentialsProblem):
        problem = facts.credentials
        return Condition(kind, problem.truth, problem.reason, problem.message)
    if facts.credentials.credential is None:
        return Condition(kind, Truth.TRUE, Reason.NOT_NEEDED, "The provider is used without a key.")
    if facts.verdict is None:
        return Condition(kind, Truth.UNKNOWN, Reason.NOT_CHECKED, "The provider is being asked.")
    return Condition(kind, facts.verdict.truth, facts.verdict.reason, facts.verdict.message)


def _programmed(facts: ProviderFacts) -> Condition:
    if not is_accepted(facts.provider) or isinstance(facts.credentials, CredentialsProblem):
        message = "It is left out of every configuration until the other conditions hold."
        return Condition(ConditionType.PROGRAMMED, Truth.FALSE, Reason.NOT_USABLE, message)
    key = facts.provider.key
    concerned = {claim: one for claim, one in facts.publishing.outcomes.items() if key in one.providers}
    nobody = "No injected pod may use it yet."
    return programmed(concerned, is_pending=facts.publishing.is_pending, nobody=nobody)


def programmed(outcomes: Mapping[Claim, Outcome], *, is_pending: bool, nobody: str) -> Condition:
    """`Programmed`, from what became of the claims concerned."""
    kind = ConditionType.PROGRAMMED
    failed = {str(claim): one.error for claim, one in sorted(outcomes.items()) if one.error is not None}
    if failed:
        shown = "; ".join(f"{claim}: {error}" for claim, error in list(failed.items())[:SHOWN_NAMESPACES])
        more = f"; and {len(failed) - SHOWN_NAMESPACES} more" if len(failed) > SHOWN_NAMESPACES else ""
        return Condition(kind, Truth.FALSE, Reason.PUBLISH_FAILED, f"Could not be published: {shown}{more}")
    if is_pending:
        return Condition(kind, Truth.UNKNOWN, Reason.PENDING, "Publishing is under way.")
    if not outcomes:
        return Condition(kind, Truth.TRUE, Reason.NOT_CLAIMED, nobody)
    return Condition(kind, Truth.TRUE, Reason.PUBLISHED, "Published wherever pods claim it.")


_CHECKS: Final = (_accepted, _credentials_valid, _programmed)
