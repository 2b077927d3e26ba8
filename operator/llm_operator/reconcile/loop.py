"""The one writer: marks what changed, looks at it, makes it so. Everything it decides is computed from the store, so
that it does not matter which events came, in which order, or at which step an earlier process died.

What it does with a claim is in `claims`, with a status in `statuses`, with a running pod in `pod_touches`.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import Any, Final

from llm_operator.kube import LLM_PROVIDER, NAMESPACE, POD, SECRET, TEAM_QUOTA, ApiError, Document, Kind
from llm_operator.publish import Publisher
from llm_operator.reconcile import marking
from llm_operator.reconcile.claims import ClaimReconciler
from llm_operator.reconcile.marking import Work, claim_work, provider_work, team_work
from llm_operator.reconcile.objects import Claim, key_of
from llm_operator.reconcile.pod_touches import PodToucher
from llm_operator.reconcile.queue import TryAgain
from llm_operator.reconcile.secret_watch import SecretWatch
from llm_operator.reconcile.state import State, Surroundings
from llm_operator.reconcile.statuses import StatusReconciler
from llm_operator.reconcile.store import Change, Store
from llm_sidecar.contract.names import INJECTED_LABEL

POD_SELECTOR: Final = f"{INJECTED_LABEL}=true"
WORKERS: Final = 4

_log: Final = logging.getLogger(__name__)


class Reconciler:
    """See the module. `heard` takes events, `run` does the rest."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._kube = surroundings.kube
        self._settings = surroundings.settings
        self._now = surroundings.now
        self._metrics = surroundings.metrics
        self._state = State(surroundings)
        self._pods = PodToucher(self._state, surroundings)
        self._claims = ClaimReconciler(self._state, surroundings, touch=self._pods.mark)
        self._statuses = StatusReconciler(self._state, surroundings)
        self._secrets = SecretWatch(
            self._kube, self.store, on_change=self._secret_changed, on_access=self._access_changed
        )
        self.synced = asyncio.Event()
        """Set once everything has been listed: before, nothing is written."""

    @property
    def store(self) -> Store:
        """The cluster, as far as it was heard of."""
        return self._state.store

    @property
    def publisher(self) -> Publisher:
        """What is published."""
        return self._state.publisher

    # --- what changed

    def heard(self, kind: Kind, event_type: str | None, document: Document) -> None:
        """A watch told of a change. Marks, and writes nothing."""
        self._metrics.events.labels(kind.plural).inc()
        self._metrics.last_event_timestamp.set(self._now().timestamp())
        if kind == SECRET:
            return
        table = self._tables()[kind]
        if event_type == "DELETED":
            change = table.remove(key_of(document), uid=document["metadata"].get("uid"))
        else:
            change = table.put(document)
        self._changed(kind, change)

    def _tables(self) -> dict[Kind, Any]:
        store = self.store
        return {
            LLM_PROVIDER: store.providers,
            TEAM_QUOTA: store.teams,
            NAMESPACE: store.namespaces,
            POD: store.pods,
        }

    def _changed(self, kind: Kind, change: Change[Any]) -> None:
        if not self.synced.is_set():
            return
        if kind == LLM_PROVIDER:
            if change.after is None:
                self._statuses.forget(change.key)
            self._state.mark(marking.after_provider(change, self.store, self._state.claims()))
        elif kind == TEAM_QUOTA:
            self._state.mark(marking.after_team(change, self._state.claims()))
        elif kind == NAMESPACE:
            self._state.mark(marking.after_namespace(change, self.store, self._state.claims()))
        elif kind == POD:
            self._state.mark(marking.after_pod(change))
            self._pods.mark(change.key)
        if kind != NAMESPACE and (kind != POD or change.before is None or change.after is None):
            self._follow_secrets()

    def _secret_changed(self, change: Change[Any]) -> None:
        self._state.mark(marking.after_secret(change, self.store, self._state.claims()))

    def _access_changed(self, namespace: str) -> None:
        self._state.mark(
            provider_work(one.key) for one in self.store.providers.values() if one.key.namespace == namespace
        )
        self._state.mark(map(claim_work, self._state.claims()))

    def _follow_secrets(self) -> None:
        needed = self.store.secret_namespaces()
        if not self._settings.all_secrets:
            named = {
                reference.partition("/")[0]
                for team in self.store.teams.values()
                if team.resource is not None
                for reference in team.resource.spec.providers
                if "/" in reference
            }
            teams_own = {claim.team.namespace for claim in self._state.claims()}
            pods_own = {claim.namespace for claim in self._state.claims()}
            needed &= {*self._settings.provider_namespaces, *named, *teams_own, *pods_own}
        self._secrets.follow(needed)

    # --- running

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await self._first_sync()
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._state.queue.work(self._reconcile))
                self._pods.start(group)
                group.create_task(self._resync_for_ever())
                group.create_task(self._statuses.watch_health())
                group.create_task(self._statuses.watch_usage())
                group.create_task(self._statuses.carry_out_purges())
        finally:
            await self._statuses.close()
            await self._secrets.close()

    async def _first_sync(self) -> None:
        pause_seconds = 0.5
        while True:
            try:
                await self.publisher.load()
                await self._resync()
            except ApiError as error:
                _log.warning("the cluster could not be listed: %s; again in %.1f s", error, pause_seconds)
            else:
                return
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, 30.0)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                await self._resync()
            except ApiError as error:
                self._metrics.resyncs.labels("failed").inc()
                _log.warning("the cluster could not be listed: %s", error)

    async def _resync(self) -> None:
        """List everything, against watches that lost something, and look at everything once."""
        for kind, table in self._tables().items():
            table.begin_listing()
            listing = await self._kube.list(kind, labels=POD_SELECTOR if kind == POD else "")
            for change in table.replace(listing.items):
                self._changed(kind, change)
        self.synced.set()
        self._metrics.resyncs.labels("done").inc()
        self._follow_secrets()
        self._state.mark(map(claim_work, self._state.claims()))
        self._state.mark(provider_work(one.key) for one in self.store.providers.values())
        self._state.mark(team_work(one.key) for one in self.store.teams.values())
        for pod in self.store.pods.values():
            self._pods.mark(pod.key)

    async def _reconcile(self, work: Work) -> None:
        self._metrics.queue_depth.labels("objects").set(len(self._state.queue))
        began, outcome = perf_counter(), "failed"
        try:
            if isinstance(work.target, Claim):
                await self._claims.reconcile(work.target)
            elif work.kind == "provider":
                await self._statuses.reconcile_provider(work.target)
            else:
                await self._statuses.reconcile_team(work.target)
            outcome = "done"
        except TryAgain:
            outcome = "later"
            raise
        finally:
            self._metrics.reconciles.labels(work.kind, outcome).inc()
            self._metrics.reconcile_seconds.labels(work.kind).observe(perf_counter() - began)
