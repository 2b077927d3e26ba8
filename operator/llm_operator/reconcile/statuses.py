"""The statuses of LLMProviders and TeamQuotas: gathers what each one's conditions depend on, and has them written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from llm_operator.kube import EVENT, LLM_PROVIDER, SECRET, TEAM_QUOTA, ApiError
from llm_operator.reconcile.alerts import alert_event
from llm_operator.reconcile.cache_purges import CachePurger
from llm_operator.reconcile.credentials import Credentials, CredentialsProblem, resolve
from llm_operator.reconcile.health import remembered
from llm_operator.reconcile.health_keeper import HealthKeeper
from llm_operator.reconcile.key_check import KeyChecker, Verdict
from llm_operator.reconcile.marking import Work, claim_work, provider_work, team_work
from llm_operator.reconcile.objects import Claim, Key, ObservedProvider, ObservedTeam, references
from llm_operator.reconcile.provider_checks import ProviderFacts, Publishing, is_accepted, provider_conditions
from llm_operator.reconcile.queue import TryAgain
from llm_operator.reconcile.state import State, Surroundings
from llm_operator.reconcile.status_writer import StatusWriter
from llm_operator.reconcile.team_checks import TeamFacts, team_conditions
from llm_operator.reconcile.usage_keeper import PendingAlert, UsageKeeper
from llm_operator.reconcile.usage_status import usage_fields
from llm_operator.status import Condition, ConditionType, Reason, Truth

PENDING_SECONDS: Final = 3.0
"""How long a status may wait for the claims that it speaks of."""
MISSING_SECRET_SECONDS: Final = 60.0
"""A Secret without our label tells nobody when it comes."""


class StatusReconciler:
    """Looks at one resource at a time, and has providers asked about their keys."""

    def __init__(self, state: State, surroundings: Surroundings) -> None:
        self._state = state
        self._kube = surroundings.kube
        self._clock = surroundings.clock
        self._metrics = surroundings.metrics
        self._writer = StatusWriter(surroundings)
        self._checker = KeyChecker(
            surroundings.ask,
            clock=self._clock,
            interval_seconds=surroundings.settings.key_check_seconds,
            on_verdict=self._on_verdict,
        )
        self._health = HealthKeeper(
            surroundings.probe,
            surroundings.reports,
            clock=self._clock,
            metrics=self._metrics,
            on_change=lambda key: state.mark([provider_work(key)]),
        )
        self._usage = UsageKeeper(
            surroundings.usages,
            teams=state.store.teams.values,
            clock=self._clock,
            metrics=self._metrics,
            on_change=lambda key: state.mark([team_work(key)]),
        )
        self._purger = CachePurger(
            surroundings.purges,
            kube=self._kube,
            teams=state.store.teams.values,
            timestamp=surroundings.timestamp,
            on_done=lambda kind, key: state.mark([provider_work(key) if kind == LLM_PROVIDER else team_work(key)]),
        )
        self._timestamp = surroundings.timestamp
        self._shared_namespaces = surroundings.settings.provider_namespaces
        self._pending_since: dict[Work, float] = {}

    async def watch_health(self) -> None:
        """Probe providers and read what proxies report, for as long as the loop runs."""
        await self._health.run()

    async def watch_usage(self) -> None:
        """Read what teams used, for as long as the loop runs."""
        await self._usage.run()

    async def carry_out_purges(self) -> None:
        """Purge cached answers where an annotation asks for it, for as long as the loop runs."""
        await self._purger.run()

    def forget(self, key: Key) -> None:
        """This provider is no more: it need not be asked about its key, nor watched."""
        self._checker.forget(key)
        self._health.forget(key)
        self._purger.forget(LLM_PROVIDER, key)

    async def close(self) -> None:
        """Ask no more."""
        await self._checker.close()
        await self._health.close()
        await self._usage.close()
        await self._purger.close()

    async def reconcile_provider(self, key: Key) -> None:
        """Look at an LLMProvider."""
        provider = self._state.store.providers.get(key)
        if provider is None:
            self.forget(key)
            return
        purged = self._purger.fields(LLM_PROVIDER, provider)
        credentials = await self._credentials(provider)
        verdict = self._verdict(provider, credentials)
        health = self._health_of(provider, credentials)
        publishing = self._publishing(provider_work(key), self._state.claims())
        facts = ProviderFacts(
            provider=provider, credentials=credentials, verdict=verdict, health=health, publishing=publishing
        )
        await self._writer.write(LLM_PROVIDER, provider, provider_conditions(facts), figures=purged)
        turned = self._health.turned(key)
        if turned is not None:
            await self._writer.tell(LLM_PROVIDER, provider, turned)

    async def reconcile_team(self, key: Key) -> None:
        """Look at a TeamQuota."""
        team = self._state.store.teams.get(key)
        if team is None:
            self._purger.forget(TEAM_QUOTA, key)
            return
        purged = self._purger.fields(TEAM_QUOTA, team)
        claims = {claim for claim in self._state.claims() if claim.team_key == key}
        picture = self._usage.picture(team)
        facts = TeamFacts(
            team=team,
            providers=self._state.store.providers,
            rules=self._state.rules(key.namespace),
            publishing=self._publishing(team_work(key), claims),
            usage=picture,
        )
        pending = self._usage.pending(key)
        figures = purged | usage_fields(picture) | await self._told_alerts(team, pending)
        await self._writer.write(TEAM_QUOTA, team, team_conditions(facts), figures=figures)
        self._usage.told(key, pending)

    async def _told_alerts(self, team: ObservedTeam, pending: list[PendingAlert]) -> dict[str, Any]:
        """Write their Events, and tell what the status shall say of it: first the Event, or a crash would lose it."""
        for one in pending:
            event = alert_event(one.alert, team, reset=one.reset, now=self._timestamp())
            try:
                await self._kube.create(EVENT, event)
            except ApiError as error:
                # 409: it is there. Other refusals of what we wrote last, as in a namespace that is being deleted.
                if not 400 <= error.status < 500 or error.status == 429:
                    raise
        return {"lastAlert": pending[-1].alert.id} if pending else {}

    def _on_verdict(self, key: Key, verdict: Verdict) -> None:
        self._metrics.key_checks.labels(str(verdict.reason)).inc()
        self._state.mark([provider_work(key)])

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
        shared = (Key(namespace, key.name) for namespace in self._shared_namespaces)
        first = next((one for one in shared if self._state.store.providers.get(one) is not None), None)
        return key.name if key == first else str(key)

    async def _credentials(self, provider: ObservedProvider) -> Credentials | CredentialsProblem:
        store = self._state.store
        credentials = resolve(provider, store)
        if not isinstance(credentials, CredentialsProblem) or credentials.reason is not Reason.SECRET_NOT_FOUND:
            return credentials
        self._state.queue.mark(provider_work(provider.key), delay_seconds=MISSING_SECRET_SECONDS)
        namespace = provider.key.namespace
        unlabelled = set[Key]()
        for name in sorted(references(provider)):
            if store.secrets.get(Key(namespace, name)) is None and await self._is_there(namespace, name):
                unlabelled.add(Key(namespace, name))
        return resolve(provider, store, unlabelled=unlabelled)

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
            self._state.queue.mark(provider_work(provider.key), delay_seconds=wait_seconds)
        return verdict

    def _publishing(self, work: Work, claims: Iterable[Claim]) -> Publishing:
        """How far it is. Waits a little for claims that are being looked at: most often one status says it all."""
        outcomes, queue = self._state.outcomes, self._state.queue
        is_pending = any(claim not in outcomes or queue.is_due(claim_work(claim)) for claim in claims)
        if not is_pending:
            self._pending_since.pop(work, None)
        elif self._clock() - self._pending_since.setdefault(work, self._clock()) < PENDING_SECONDS:
            raise TryAgain(0.1)
        else:
            queue.mark(work, delay_seconds=PENDING_SECONDS)
        return Publishing(outcomes=outcomes, is_pending=is_pending)
