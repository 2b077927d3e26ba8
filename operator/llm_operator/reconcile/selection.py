"""Which providers serve a claim. Pure; here a foreign provider is kept from drawing a team's prompts to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_operator.inject.claims import admits
from llm_operator.reconcile.objects import Claim, Key, ObservedProvider, ObservedTeam
from llm_operator.reconcile.store import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides besides the resources themselves."""

    shared_namespaces: Sequence[str]
    namespace_labels: Mapping[str, str]
    """Of the pod's namespace."""


def providers_for(
    claim: Claim, team: ObservedTeam | None, providers: Table[ObservedProvider], rules: Rules
) -> list[ObservedProvider]:
    """The providers that a team may use in a namespace, in the order of their keys."""
    by_default = {
        provider.key: provider
        for provider in providers.values()
        if provider.key.namespace == claim.namespace
        or (provider.key.namespace in rules.shared_namespaces and _admits(provider, claim.namespace, rules))
    }
    named = _named(team)
    if not named:
        return [by_default[key] for key in sorted(by_default)]
    chosen: dict[Key, ObservedProvider] = {}
    for reference in named:
        for key in meant_by(reference, claim.team.namespace, providers, rules.shared_namespaces):
            provider = by_default.get(key) or providers.get(key)
            if provider is not None and (key in by_default or _admits(provider, claim.namespace, rules)):
                chosen[key] = provider
    return [chosen[key] for key in sorted(chosen)]


def meant_by(
    reference: str, team_namespace: str, providers: Table[ObservedProvider], shared_namespaces: Sequence[str]
) -> list[Key]:
    """The providers that an entry of `spec.providers` names: the team's own one before shared ones of that name."""
    namespace, slash, name = reference.partition("/")
    if slash:
        keys = [Key(namespace, name)]
    elif providers.get(Key(team_namespace, reference)) is not None:
        keys = [Key(team_namespace, reference)]
    else:
        keys = [Key(shared, reference) for shared in shared_namespaces]
    return [key for key in keys if providers.get(key) is not None]


def _named(team: ObservedTeam | None) -> tuple[str, ...]:
    return team.resource.spec.providers if team is not None and team.resource is not None else ()


def _admits(provider: ObservedProvider, namespace: str, rules: Rules) -> bool:
    return admits(
        provider.allowed_namespaces,
        home=provider.key.namespace,
        namespace=namespace,
        namespace_labels=rules.namespace_labels,
    )
