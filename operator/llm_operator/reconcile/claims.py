"""Claims: whether there is anything to publish for one, what, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from llm_operator.kube import ApiError
from llm_operator.reconcile.marking import claim_work, provider_work, team_work
from llm_operator.reconcile.objects import Claim, Key, references
from llm_operator.reconcile.provider_checks import Outcome
from llm_operator.reconcile.queue import TryAgain
from llm_operator.reconcile.selection import providers_for
from llm_operator.reconcile.state import State, Surroundings
from llm_operator.render import NotRendered, Rendering, render

UNKNOWN_TEAM_SECONDS: Final = 3.0
"""A pod may be heard of before its TeamQuota is; only after this long there is none."""

_log: Final = logging.getLogger(__name__)


class ClaimReconciler:
    """Makes the Secret of a claim so. `touch` is told the pods that shall look at it."""

    def __init__(self, state: State, surroundings: Surroundings, *, touch: Callable[[Key], None]) -> None:
        self._state = state
        self._settings = surroundings.settings
        self._clock = surroundings.clock
        self._touch = touch
        self._unused_since: dict[Claim, float] = {}
        self._first_seen: dict[Claim, float] = {}

    async def reconcile(self, claim: Claim) -> None:
        """Look at one."""
        store, publisher = self._state.store, self._state.publisher
        namespace = store.namespace(claim.namespace)
        has_pods = bool(store.pods_of(claim))
        if namespace is None and has_pods:
            raise TryAgain(1.0)  # its labels decide, and they have not come yet
        if namespace is None or namespace.is_terminating:
            await publisher.forget(claim)
            self._told(claim, None)
            return
        if not has_pods and await self._is_over(claim):
            return
        self._wait_for_what_is_still_to_be_heard(claim)
        rendering = render(claim, store=store, settings=self._settings)
        if isinstance(rendering, NotRendered):
            self._told(claim, Outcome(error=rendering.message))
            return
        await self._publish(claim, rendering)

    async def _is_over(self, claim: Claim) -> bool:
        """Whether the Secret of a claim without pods is gone; it stays a while, for the next pod."""
        publisher = self._state.publisher
        if claim not in publisher.claims:
            self._told(claim, None)
            return True
        since = self._unused_since.setdefault(claim, self._clock())
        left = self._settings.unused_seconds - (self._clock() - since)
        if left > 0:
            self._state.queue.mark(claim_work(claim), delay_seconds=left)
            return False
        await publisher.remove(claim)
        self._told(claim, None)
        return True

    def _wait_for_what_is_still_to_be_heard(self, claim: Claim) -> None:
        store = self._state.store
        team = store.teams.get(claim.team_key)
        first_seen = self._first_seen.setdefault(claim, self._clock())
        is_new = claim not in self._state.publisher.claims
        if team is None and is_new and self._clock() - first_seen < UNKNOWN_TEAM_SECONDS:
            raise TryAgain(1.0)
        for provider in providers_for(claim, team, store.providers, self._state.rules(claim.namespace)):
            namespace = provider.key.namespace
            is_known = namespace in store.read or namespace in store.unreadable
            if references(provider) and not is_known:
                raise TryAgain(0.2)  # without its Secret it would be left out, and running pods would lose it

    async def _publish(self, claim: Claim, rendering: Rendering) -> None:
        pods = self._state.store.pods_of(claim)
        if pods:
            self._unused_since.pop(claim, None)
        outcome = Outcome(providers=rendering.providers, is_allowed=rendering.is_allowed)
        is_awaited = any(pod.config_hash is None for pod in pods)
        try:
            has_changed = await self._state.publisher.publish(claim, rendering, is_awaited=is_awaited)
        except ApiError as error:
            told = _why_not_published(claim, error)
            self._told(claim, Outcome(providers=outcome.providers, is_allowed=outcome.is_allowed, error=told))
            raise
        self._told(claim, outcome)
        if has_changed:
            what = f"{len(rendering.providers)} providers" if rendering.is_allowed else "no keys: it is not allowed"
            _log.info("published %s with %s (%s)", claim, what, rendering.hash)
        for pod in pods:
            if pod.config_hash != rendering.hash:
                self._touch(pod.key)

    def _told(self, claim: Claim, outcome: Outcome | None) -> None:
        """Remember what became of a claim, and look at those whose status speaks of it."""
        outcomes = self._state.outcomes
        before = outcomes.get(claim)
        if outcome is None:
            outcomes.pop(claim, None)
            self._unused_since.pop(claim, None)
            self._first_seen.pop(claim, None)
        else:
            outcomes[claim] = outcome
        if before == outcome:
            return
        concerned = (before.providers if before else frozenset()) | (outcome.providers if outcome else frozenset())
        self._state.mark(map(provider_work, concerned))
        self._state.mark([team_work(claim.team_key)])


def _why_not_published(claim: Claim, error: ApiError) -> str:
    name = f"Secret {claim.team.secret}"
    if error.status == 422:
        return f"{name} is in the way, or not what it should be. Fix: delete it, and it is made anew"
    if error.is_forbidden:
        return f"the controller may not write {name}. Fix: check the chart's ClusterRole and the namespace's policies"
    return f"{error}; it is tried again"
