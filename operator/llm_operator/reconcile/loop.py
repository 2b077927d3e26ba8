"""The one writer: marks what changed, looks at it, makes it so. Everything it decides is computed from the store, so
that it does not matter which events came, in which order, or at which step an earlier process died.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

from llm_operator.kube import (
    EVENT,
    LLM_PROVIDER,
    NAMESPACE,
    POD,
    SECRET,
    TEAM_QUOTA,
    ApiError,
    Document,
    Kind,
    Kube,
)
from llm_operator.publish import Publisher
from llm_operator.reconcile import marking
from llm_operator.reconcile.credentials import Credentials, CredentialsProblem, resolve
from llm_operator.reconcile.health import remembered
from llm_operator.reconcile.health_keeper import HealthKeeper
from llm_operator.reconcile.health_probe import ProbeProvider
from llm_operator.reconcile.key_check import Ask, KeyChecker, Verdict
from llm_operator.reconcile.marking import Work, claim_work, provider_work, team_work
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.objects import (
    Claim,
    Key,
    ObservedProvider,
    ObservedResource,
    ObservedTeam,
    key_of,
    references,
)
from llm_operator.reconcile.provider_checks import (
    Outcome,
    ProviderFacts,
    Publishing,
    is_accepted,
    provider_conditions,
)
from llm_operator.reconcile.queue import TryAgain, WorkQueue
from llm_operator.reconcile.report_reader import Reports
from llm_operator.reconcile.secret_watch import SecretWatch
from llm_operator.reconcile.selection import Rules, providers_for
from llm_operator.reconcile.store import Change, Store
from llm_operator.reconcile.team_checks import TeamFacts, team_conditions
from llm_operator.render import NotRendered, Rendering, render
from llm_operator.settings import Settings
from llm_operator.status import Condition, ConditionType, Reason, Truth, status_document, transition
from llm_sidecar.contract.names import INJECTED_LABEL

POD_SELECTOR: Final = f"{INJECTED_LABEL}=true"
WORKERS: Final = 4
POD_WORKERS: Final = 8
GATHER_SECONDS: Final = 0.05
"""Changes that come together, as `kubectl apply` of several resources does, are looked at together."""
UNKNOWN_TEAM_SECONDS: Final = 3.0
"""A pod may be heard of before its TeamQuota is; only after this long there is none."""
PENDING_SECONDS: Final = 3.0
"""How long a status may wait for the claims that it speaks of."""
MISSING_SECRET_SECONDS: Final = 60.0
"""A Secret without our label tells nobody when it comes."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the loop needs from outside."""

    kube: Kube
    settings: Settings
    ask: Ask
    probe: ProbeProvider
    reports: Reports | None = None
    """None: there is no Redis to read them from."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    metrics: ControllerMetrics


class Reconciler:
    """See the module. `heard` takes events, `run` does the rest."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._kube = surroundings.kube
        self._settings = surroundings.settings
        self._clock = surroundings.clock
        self._now = surroundings.now
        self._metrics = surroundings.metrics
        self.store = Store()
        self.publisher = Publisher(self._kube, self._settings, clock=self._clock, metrics=self._metrics)
        self._queue: WorkQueue[Work] = WorkQueue(self._clock)
        self._pods: WorkQueue[Key] = WorkQueue(self._clock)
        self._checker = KeyChecker(
            surroundings.ask,
            clock=self._clock,
            interval_seconds=self._settings.key_check_seconds,
            on_verdict=self._on_verdict,
        )
        self._health = HealthKeeper(
            surroundings.probe,
            surroundings.reports,
            clock=self._clock,
            metrics=self._metrics,
            on_change=lambda key: self._mark([provider_work(key)]),
        )
        self._secrets = SecretWatch(
            self._kube, self.store, on_change=self._secret_changed, on_access=self._access_changed
        )
        self._outcomes: dict[Claim, Outcome] = {}
        self._unused_since: dict[Claim, float] = {}
        self._first_seen: dict[Claim, float] = {}
        self._pending_since: dict[Work, float] = {}
        self._next_pod_patch_at = 0.0
        self.synced = asyncio.Event()
        """Set once everything has been listed: before, nothing is written."""

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
                self._checker.forget(change.key)
                self._health.forget(change.key)
            self._mark(marking.after_provider(change, self.store, self._claims()))
        elif kind == TEAM_QUOTA:
            self._mark(marking.after_team(change, self._claims()))
        elif kind == NAMESPACE:
            self._mark(marking.after_namespace(change, self.store, self._claims()))
        elif kind == POD:
            self._mark(marking.after_pod(change))
            self._pods.mark(change.key)
        if kind != NAMESPACE and (kind != POD or change.before is None or change.after is None):
            self._follow_secrets()

    def _secret_changed(self, change: Change[Any]) -> None:
        self._mark(marking.after_secret(change, self.store, self._claims()))

    def _access_changed(self, namespace: str) -> None:
        self._mark(provider_work(one.key) for one in self.store.providers.values() if one.key.namespace == namespace)
        self._mark(map(claim_work, self._claims()))

    def _on_verdict(self, key: Key, verdict: Verdict) -> None:
        self._metrics.key_checks.labels(str(verdict.reason)).inc()
        self._mark([provider_work(key)])

    def _mark(self, works: Iterable[Work]) -> None:
        for work in works:
            self._queue.mark(work, delay_seconds=GATHER_SECONDS if work.kind == "claim" else 0.0)

    def _claims(self) -> set[Claim]:
        return self.store.claims() | self.publisher.claims

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
            teams_own = {claim.team.namespace for claim in self._claims()}
            pods_own = {claim.namespace for claim in self._claims()}
            needed &= {*self._settings.provider_namespaces, *named, *teams_own, *pods_own}
        self._secrets.follow(needed)

    # --- running

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await self._first_sync()
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._queue.work(self._reconcile))
                for _ in range(POD_WORKERS):
                    group.create_task(self._pods.work(self._touch_pod))
                group.create_task(self._resync_for_ever())
                group.create_task(self._health.run())
        finally:
            await self._checker.close()
            await self._health.close()
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
        self._mark(map(claim_work, self._claims()))
        self._mark(provider_work(one.key) for one in self.store.providers.values())
        self._mark(team_work(one.key) for one in self.store.teams.values())
        for pod in self.store.pods.values():
            self._pods.mark(pod.key)

    async def _reconcile(self, work: Work) -> None:
        self._metrics.queue_depth.labels("objects").set(len(self._queue))
        began, outcome = perf_counter(), "failed"
        try:
            if isinstance(work.target, Claim):
                await self._reconcile_claim(work.target)
            elif work.kind == "provider":
                await self._reconcile_provider(work.target)
            else:
                await self._reconcile_team(work.target)
            outcome = "done"
        except TryAgain:
            outcome = "later"
            raise
        finally:
            self._metrics.reconciles.labels(work.kind, outcome).inc()
            self._metrics.reconcile_seconds.labels(work.kind).observe(perf_counter() - began)

    # --- claims

    async def _reconcile_claim(self, claim: Claim) -> None:
        namespace = self.store.namespace(claim.namespace)
        has_pods = bool(self.store.pods_of(claim))
        if namespace is None and has_pods:
            raise TryAgain(1.0)  # its labels decide, and they have not come yet
        if namespace is None or namespace.is_terminating:
            await self.publisher.forget(claim)
            self._told(claim, None)
            return
        if not has_pods and await self._is_over(claim):
            return
        self._wait_for_what_is_still_to_be_heard(claim)
        rendering = render(claim, store=self.store, settings=self._settings)
        if isinstance(rendering, NotRendered):
            self._told(claim, Outcome(error=rendering.message))
            return
        await self._publish(claim, rendering)

    async def _is_over(self, claim: Claim) -> bool:
        """Whether the Secret of a claim without pods is gone; it stays a while, for the next pod."""
        if claim not in self.publisher.claims:
            self._told(claim, None)
            return True
        since = self._unused_since.setdefault(claim, self._clock())
        left = self._settings.unused_seconds - (self._clock() - since)
        if left > 0:
            self._queue.mark(claim_work(claim), delay_seconds=left)
            return False
        await self.publisher.remove(claim)
        self._told(claim, None)
        return True

    def _wait_for_what_is_still_to_be_heard(self, claim: Claim) -> None:
        team = self.store.teams.get(claim.team_key)
        first_seen = self._first_seen.setdefault(claim, self._clock())
        is_new = claim not in self.publisher.claims
        if team is None and is_new and self._clock() - first_seen < UNKNOWN_TEAM_SECONDS:
            raise TryAgain(1.0)
        for provider in self._providers_for(claim, team):
            namespace = provider.key.namespace
            is_known = namespace in self.store.read or namespace in self.store.unreadable
            if references(provider) and not is_known:
                raise TryAgain(0.2)  # without its Secret it would be left out, and running pods would lose it

    def _providers_for(self, claim: Claim, team: ObservedTeam | None) -> list[ObservedProvider]:
        return providers_for(claim, team, self.store.providers, self._rules(claim.namespace))

    def _rules(self, namespace: str) -> Rules:
        found = self.store.namespace(namespace)
        labels = found.labels if found is not None else {}
        return Rules(shared_namespaces=self._settings.provider_namespaces, namespace_labels=labels)

    async def _publish(self, claim: Claim, rendering: Rendering) -> None:
        pods = self.store.pods_of(claim)
        if pods:
            self._unused_since.pop(claim, None)
        outcome = Outcome(providers=rendering.providers, is_allowed=rendering.is_allowed)
        is_awaited = any(pod.config_hash is None for pod in pods)
        try:
            has_changed = await self.publisher.publish(claim, rendering, is_awaited=is_awaited)
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
                self._pods.mark(pod.key)

    def _told(self, claim: Claim, outcome: Outcome | None) -> None:
        """Remember what became of a claim, and look at those whose status speaks of it."""
        before = self._outcomes.get(claim)
        if outcome is None:
            self._outcomes.pop(claim, None)
            self._unused_since.pop(claim, None)
            self._first_seen.pop(claim, None)
        else:
            self._outcomes[claim] = outcome
        if before == outcome:
            return
        concerned = (before.providers if before else frozenset()) | (outcome.providers if outcome else frozenset())
        self._mark(map(provider_work, concerned))
        self._mark([team_work(claim.team_key)])

    # --- pods

    async def _touch_pod(self, key: Key) -> None:
        self._metrics.queue_depth.labels("pods").set(len(self._pods))
        pod = self.store.pods.get(key)
        wanted = self.publisher.hash_of(pod.claim) if pod is not None else None
        if pod is None or wanted is None or pod.config_hash == wanted:
            return
        now = self._clock()
        self._next_pod_patch_at = max(now, self._next_pod_patch_at) + 1 / self._settings.pod_patches_per_second
        await asyncio.sleep(self._next_pod_patch_at - now)
        await self.publisher.touch(pod, self.publisher.hash_of(pod.claim) or wanted)

    # --- statuses

    async def _reconcile_provider(self, key: Key) -> None:
        provider = self.store.providers.get(key)
        if provider is None:
            self._checker.forget(key)
            self._health.forget(key)
            return
        credentials = await self._credentials(provider)
        verdict = self._verdict(provider, credentials)
        health = self._health_of(provider, credentials)
        publishing = self._publishing(provider_work(key), self._claims())
        facts = ProviderFacts(
            provider=provider, credentials=credentials, verdict=verdict, health=health, publishing=publishing
        )
        await self._write_status(LLM_PROVIDER, provider, provider_conditions(facts))
        turned = self._health.turned(key)
        if turned is not None:
            await self._tell(LLM_PROVIDER, provider, turned)

    def _health_of(self, provider: ObservedProvider, credentials: Credentials | CredentialsProblem) -> Condition:
        before = remembered(provider.status, provider.generation)
        if is_accepted(provider) and provider.resource is not None and isinstance(credentials, Credentials):
            return self._health.condition(
                provider.key,
                provider.resource.spec,
                credentials,
                label=self._label(provider.key),
                remembered=before,
            )
        self._health.forget(provider.key)
        if before is not None and isinstance(credentials, CredentialsProblem) and credentials.truth is Truth.UNKNOWN:
            return before  # its Secret is still to be read
        message = "It is not watched until the spec is accepted and its Secrets are there."
        return Condition(ConditionType.HEALTHY, Truth.UNKNOWN, Reason.NOT_CHECKED, message)

    def _label(self, key: Key) -> str:
        """Its name in metrics, as the proxies name it: alone where it is the first shared provider of that name."""
        shared = (Key(namespace, key.name) for namespace in self._settings.provider_namespaces)
        first = next((one for one in shared if self.store.providers.get(one) is not None), None)
        return key.name if key == first else str(key)

    async def _credentials(self, provider: ObservedProvider) -> Credentials | CredentialsProblem:
        credentials = resolve(provider, self.store)
        if not isinstance(credentials, CredentialsProblem) or credentials.reason is not Reason.SECRET_NOT_FOUND:
            return credentials
        self._queue.mark(provider_work(provider.key), delay_seconds=MISSING_SECRET_SECONDS)
        namespace = provider.key.namespace
        unlabelled = set[Key]()
        for name in sorted(references(provider)):
            if self.store.secrets.get(Key(namespace, name)) is None and await self._is_there(namespace, name):
                unlabelled.add(Key(namespace, name))
        return resolve(provider, self.store, unlabelled=unlabelled)

    async def _is_there(self, namespace: str, name: str) -> bool:
        try:
            return await self._kube.exists(SECRET, namespace=namespace, name=name)
        except ApiError as error:
            if error.is_forbidden:
                return False
            raise

    def _verdict(self, provider: ObservedProvider, credentials: Credentials | CredentialsProblem) -> Verdict | None:
        if not is_accepted(provider) or provider.resource is None or not isinstance(credentials, Credentials):
            return None
        if credentials.credential is None:
            return None
        verdict = self._checker.verdict(provider.key, provider.resource.spec, credentials)
        wait_seconds = self._checker.seconds_until_next(provider.key)
        if verdict is not None and wait_seconds is not None:
            self._queue.mark(provider_work(provider.key), delay_seconds=wait_seconds)
        return verdict

    async def _reconcile_team(self, key: Key) -> None:
        team = self.store.teams.get(key)
        if team is None:
            return
        claims = {claim for claim in self._claims() if claim.team_key == key}
        facts = TeamFacts(
            team=team,
            providers=self.store.providers,
            rules=self._rules(key.namespace),
            publishing=self._publishing(team_work(key), claims),
        )
        await self._write_status(TEAM_QUOTA, team, team_conditions(facts))

    def _publishing(self, work: Work, claims: Iterable[Claim]) -> Publishing:
        """How far it is. Waits a little for claims that are being looked at: most often one status says it all."""
        is_pending = any(claim not in self._outcomes or self._queue.is_due(claim_work(claim)) for claim in claims)
        if not is_pending:
            self._pending_since.pop(work, None)
        elif self._clock() - self._pending_since.setdefault(work, self._clock()) < PENDING_SECONDS:
            raise TryAgain(0.1)
        else:
            self._queue.mark(work, delay_seconds=PENDING_SECONDS)
        return Publishing(outcomes=self._outcomes, is_pending=is_pending)

    async def _write_status(
        self, kind: Kind, observed: ObservedResource[Any], conditions: tuple[Condition, ...]
    ) -> None:
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        status = status_document(conditions, generation=observed.generation, previous=observed.status, now=now)
        if status is None:
            return
        previous = observed.status
        key = observed.key
        try:
            await self._kube.merge(
                kind, namespace=key.namespace, name=key.name, patch={"status": status}, subresource="status"
            )
        except ApiError as error:
            if error.is_missing:
                return
            raise
        # The event that tells of it is still to come; until then this is what is there.
        observed.document["status"] = status
        if transition(conditions[-1], previous):
            await self._tell(kind, observed, conditions[-1])

    async def _tell(self, kind: Kind, observed: ObservedResource[Any], condition: Condition) -> None:
        """An Event, for those who `kubectl describe`. One that is lost is no loss."""
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        key = observed.key
        event = {
            "metadata": {"generateName": f"{key.name}.", "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": kind.api_version,
                "kind": kind.name,
                "namespace": key.namespace,
                "name": key.name,
                "uid": observed.uid,
            },
            "type": "Warning" if condition.truth is Truth.FALSE else "Normal",
            "reason": str(condition.reason),
            "message": condition.message[:1024],
            "source": {"component": "llm-sidecar-controller"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        with contextlib.suppress(ApiError):
            await self._kube.create(EVENT, event)


def _why_not_published(claim: Claim, error: ApiError) -> str:
    name = f"Secret {claim.team.secret}"
    if error.status == 422:
        return f"{name} is in the way, or not what it should be. Fix: delete it, and it is made anew"
    if error.is_forbidden:
        return f"the controller may not write {name}. Fix: check the chart's ClusterRole and the namespace's policies"
    return f"{error}; it is tried again"
