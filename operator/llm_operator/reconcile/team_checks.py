"""A TeamQuota's conditions, made as a provider's are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_operator.inject.claims import admits
from llm_operator.reconcile.objects import ObservedProvider, ObservedTeam
from llm_operator.reconcile.provider_checks import Publishing, programmed
from llm_operator.reconcile.selection import Rules, meant_by
from llm_operator.reconcile.store import Table
from llm_operator.reconcile.usage_status import Picture, usage_conditions
from llm_operator.status import Condition, ConditionType, Reason, Truth, ready
from llm_sidecar.contract.allowed_namespaces import NamespacesFrom
from llm_sidecar.contract.resources import TeamQuotaSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamFacts:
    """All that a TeamQuota's conditions depend on."""

    team: ObservedTeam
    providers: Table[ObservedProvider]
    rules: Rules
    """With the labels of the TeamQuota's own namespace."""
    publishing: Publishing
    usage: Picture


def team_conditions(facts: TeamFacts) -> tuple[Condition, ...]:
    """All conditions, the summary last."""
    conditions = (_accepted(facts), _programmed(facts))
    # That a limit is reached is no fault of the team's setup: it stays ready.
    return (*conditions, *usage_conditions(facts.usage, facts.team.status), ready(conditions))


def _accepted(facts: TeamFacts) -> Condition:
    resource = facts.team.resource
    if resource is None:
        message = "; ".join(facts.team.problems)
        return Condition(ConditionType.ACCEPTED, Truth.FALSE, Reason.INVALID_SPEC, message)
    missing, refused = _unusable_references(facts, resource.spec)
    if missing:
        message = f"{missing[0]}: there is no such LLMProvider. Fix: correct the name, or create it"
        return Condition(ConditionType.ACCEPTED, Truth.FALSE, Reason.PROVIDER_NOT_FOUND, message)
    if refused:
        message = (
            f"{refused[0]}: this LLMProvider does not admit namespace {facts.team.key.namespace}. "
            "Fix: ask its owner to widen its spec.allowedNamespaces, or remove it here"
        )
        return Condition(ConditionType.ACCEPTED, Truth.FALSE, Reason.PROVIDER_NOT_ALLOWED, message)
    return Condition(ConditionType.ACCEPTED, Truth.TRUE, Reason.VALID, "The spec is valid.")


def _unusable_references(facts: TeamFacts, spec: TeamQuotaSpec) -> tuple[Sequence[str], Sequence[str]]:
    missing, refused = [], []
    for position, reference in enumerate(spec.providers):
        field_name = f"spec.providers[{position}] ({reference})"
        meant = meant_by(reference, facts.team.key.namespace, facts.providers, facts.rules.shared_namespaces)
        found = [provider for key in meant if (provider := facts.providers.get(key)) is not None]
        if not found:
            missing.append(field_name)
        # Whose pods claim the team from elsewhere is known only when they do.
        elif spec.allowed_namespaces.from_ is NamespacesFrom.SAME and not any(_admits(one, facts) for one in found):
            refused.append(field_name)
    return missing, refused


def _admits(provider: ObservedProvider, facts: TeamFacts) -> bool:
    own = facts.team.key.namespace
    return provider.key.namespace == own or admits(
        provider.allowed_namespaces,
        home=provider.key.namespace,
        namespace=own,
        namespace_labels=facts.rules.namespace_labels,
    )


def _programmed(facts: TeamFacts) -> Condition:
    team = facts.team.key
    concerned = {
        claim: outcome
        for claim, outcome in facts.publishing.outcomes.items()
        if claim.team_key == team and (outcome.is_allowed or outcome.error is not None)
    }
    nobody = "No injected pod claims this team yet."
    return programmed(concerned, is_pending=facts.publishing.is_pending, nobody=nobody)
