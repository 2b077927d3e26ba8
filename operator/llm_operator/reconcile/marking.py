"""What has to be looked at again after a change. Pure: from a change to keys of the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from llm_operator.reconcile.objects import (
    Claim,
    Key,
    ObservedNamespace,
    ObservedPod,
    ObservedProvider,
    ObservedSecret,
    ObservedTeam,
    references,
)
from llm_operator.reconcile.store import Change, Store


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to look at."""

    kind: Literal["provider", "team", "claim"]
    target: Key | Claim

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


def provider_work(key: Key) -> Work:
    """Look at an LLMProvider's status."""
    return Work("provider", key)


def team_work(key: Key) -> Work:
    """Look at a TeamQuota's status."""
    return Work("team", key)


def claim_work(claim: Claim) -> Work:
    """Look at a claim's Secret."""
    return Work("claim", claim)


def after_provider(change: Change[ObservedProvider], store: Store, claims: Iterable[Claim]) -> Iterator[Work]:
    """All claims, where its spec changed: which of them it serves is for `render` to say, and costs no call."""
    yield provider_work(change.key)
    if _same_spec(change.before, change.after):
        return
    yield from map(claim_work, claims)
    yield from (team_work(team.key) for team in store.teams.values())


def after_team(change: Change[ObservedTeam], claims: Iterable[Claim]) -> Iterator[Work]:
    """The claims of this team."""
    yield team_work(change.key)
    if _same_spec(change.before, change.after):
        return
    yield from (claim_work(claim) for claim in claims if claim.team_key == change.key)


def after_namespace(change: Change[ObservedNamespace], store: Store, claims: Iterable[Claim]) -> Iterator[Work]:
    """The claims of its pods, and the TeamQuotas in it, where its labels changed or it goes."""
    if change.before == change.after:
        return
    yield from (claim_work(claim) for claim in claims if claim.namespace == change.key.name)
    yield from (team_work(team.key) for team in store.teams.values() if team.key.namespace == change.key.name)


def after_secret(change: Change[ObservedSecret], store: Store, claims: Iterable[Claim]) -> Iterator[Work]:
    """The providers that refer to it, and all claims where there is one."""
    if change.before == change.after:
        return
    concerned = [
        provider.key
        for provider in store.providers.values()
        if provider.key.namespace == change.key.namespace and change.key.name in references(provider)
    ]
    yield from map(provider_work, concerned)
    if concerned:
        yield from map(claim_work, claims)


def after_pod(change: Change[ObservedPod]) -> Iterator[Work]:
    """Its claim, where it came, went, or changed sides. Whatever else a pod tells is not ours."""
    before = change.before.claim if change.before is not None else None
    after = change.after.claim if change.after is not None else None
    if before != after:
        yield from (claim_work(claim) for claim in (before, after) if claim is not None)


def _same_spec(before: ObservedProvider | ObservedTeam | None, after: ObservedProvider | ObservedTeam | None) -> bool:
    # The API server counts `generation` up with every change of the spec, and with no other.
    return before is not None and after is not None and (before.uid, before.generation) == (after.uid, after.generation)
