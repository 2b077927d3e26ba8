"""Asking providers for one answer: candidate after candidate, each as often as is worth it, until one answers.

What is remembered beyond one request stands in `known_providers.py`; what a candidate is sent, in `preparing.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final

from llm_sidecar.errors import BRIEF_WAIT_MILLISECONDS, NoProviderAvailable
from llm_sidecar.failover.attempt import AttemptFailed
from llm_sidecar.failover.circuit import NotAdmitted
from llm_sidecar.failover.failures import Decision, Failure
from llm_sidecar.failover.gate import unfit
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.preparing import Preparing
from llm_sidecar.quota.provider_rate import GrantedRate, NoRoom, Take
from llm_sidecar.record import Attempt, RequestRecord, Skipped
from llm_sidecar.translation.losses import Untranslatable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.breaker import Permit
    from llm_sidecar.failover.retry_budget import LocalRetries
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import Format, ParsedRequest
    from llm_sidecar.known_providers import Providers
    from llm_sidecar.preparing import Answer, Prepared
    from llm_sidecar.quota.provider_rate import ProviderRates

_LASTING: Final = frozenset({FailureKind.AUTHENTICATION, FailureKind.REDIRECTED, FailureKind.QUOTA_EXHAUSTED})
"""A key, an address or an account that is wrong now is still wrong in a second."""
RETRY_AFTER_MILLISECONDS: Final = 1000
NO_ROOM: Final = "rate_limits_used_up"
"""Why a candidate was skipped: see `quota/provider_rate.py`."""
USUAL_OUTPUT_TOKENS: Final = 1024
"""Of what a provider grants, no more output than this is taken ahead: most answers are shorter than their cap."""


class Answered:
    """The candidate that answered, and how. Its permit is still to be told how a stream ended.

    Not a dataclass, as `_Visit`: every request makes one.
    """

    __slots__ = ("answer", "candidate", "error", "permit", "take")

    def __init__(
        self,
        candidate: Candidate,
        answer: Answer,
        *,
        permit: Permit | None = None,
        error: FailureKind | None = None,
        take: Take | None = None,
    ) -> None:
        self.candidate = candidate
        self.answer = answer
        self.permit = permit
        """None for an error."""
        self.error = error
        """Of an answer that is a provider's error."""
        self.take = take
        """Of what the provider grants; still to be told what was used."""


class _Visit:
    """One request at one candidate, over all its attempts there."""

    __slots__ = ("candidate", "others_left", "prepared", "retries", "spared", "waited_seconds")

    def __init__(self, candidate: Candidate, prepared: Prepared, *, others_left: bool) -> None:
        self.candidate = candidate
        self.prepared = prepared
        self.others_left = others_left
        self.retries: LocalRetries | None = None
        """Made when the first attempt has failed."""
        self.waited_seconds = 0.0
        self.spared: Skipped | None = None
        """Its circuit has closed again only just now; so it stands among the skipped."""


class Asking:
    """Asks for one request's answer."""

    __slots__ = (
        "_earliest_seconds",
        "_exchange",
        "_last_error",
        "_moves_to",
        "_parsed",
        "_preparing",
        "_providers",
        "_record",
    )

    def __init__(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        wire: Format,
        providers: Providers,
        moves_to: Callable[[Candidate], Awaitable[str | None]],
    ) -> None:
        """`moves_to` sees that the team's quota holds what a candidate may take, or says why it must not be asked."""
        self._exchange = exchange
        self._record: RequestRecord = exchange.record
        self._parsed = parsed
        self._providers = providers
        self._moves_to = moves_to
        self._preparing = Preparing(exchange, parsed, wire)
        self._last_error: Answered | None = None
        self._earliest_seconds: float | None = None

    async def ask(self, candidates: Sequence[Candidate]) -> Answered:
        """The first answer, which may be an error that is the application's. Raises `NoProviderAvailable`."""
        for visit in self._visits(candidates):
            outcome = await self._ask_once(visit)
            if isinstance(outcome, Failure):
                outcome = await self._ask_again(visit, outcome)
            if outcome is not None:
                return outcome
        if self._last_error is None:
            raise self._nobody_answered()
        self._answered_by(self._last_error.candidate)
        return self._last_error

    def _visits(self, candidates: Sequence[Candidate]) -> Iterator[_Visit]:
        """Each candidate that fits, and in the end once more those that were spared while another could answer."""
        reasons = unfit(candidates, self._parsed) if len(candidates) > 1 else {}
        last_fit = len(candidates) - 1
        while last_fit in reasons:
            last_fit -= 1
        visits: list[_Visit] = []
        for position, candidate in enumerate(candidates):
            if position in reasons:
                self._skip(candidate, reasons[position])
                continue
            try:
                prepared = self._preparing.for_candidate(candidate)
            except Untranslatable as error:
                self._skip(candidate, f"{candidate.api} cannot say {error.what}")
                continue
            visit = _Visit(candidate, prepared, others_left=position < last_fit)
            visits.append(visit)
            yield visit
        for visit in visits:
            if visit.spared is not None:
                self._record.skipped.remove(visit.spared)
                visit.others_left = False
                yield visit

    async def _ask_again(self, visit: _Visit, failure: Failure) -> Answered | None:
        """Ask one candidate as often as is still worth it; None where another is to be asked."""
        outcome: Answered | Failure | None = failure
        while isinstance(outcome, Failure):
            pause_seconds = self._retries(visit).pause_seconds(outcome, others_left=visit.others_left)
            if pause_seconds is None:
                if outcome.code == NO_ROOM:
                    self._skip(visit.candidate, NO_ROOM)
                    self._may_come_again(outcome.retry_after_seconds or 0.0)
                return None
            await asyncio.sleep(pause_seconds)
            visit.waited_seconds = pause_seconds
            outcome = await self._ask_once(visit)
        return outcome

    def _retries(self, visit: _Visit) -> LocalRetries:
        if visit.retries is None:
            visit.retries = self._providers.retries(
                visit.candidate.configured, sdk_retries=self._record.sdk_retry_count
            )
        return visit.retries

    async def _ask_once(self, visit: _Visit) -> Answered | Failure | None:
        """One attempt. None where the candidate must not be asked."""
        candidate, record = visit.candidate, self._record
        configured = candidate.configured
        breaker = self._providers.breaker(candidate)
        permit = breaker.admit(gently=visit.others_left)
        if isinstance(permit, NotAdmitted):
            skipped = self._skip(candidate, permit)
            visit.spared = skipped if permit is NotAdmitted.RECOVERING else None
            self._may_come_again(breaker.probe_in_seconds)
            return None
        if visit.retries is None:
            self._providers.request_began(configured, sdk_retries=record.sdk_retry_count)
        take: Take | None = None
        began = time.perf_counter()
        try:
            why_not = await self._moves_to(candidate)
            if why_not is not None:
                permit.abandoned()
                self._skip(candidate, why_not)
                return None
            rates = self._exchange.serving.rates
            if rates is not None and (configured.requests_per_minute or configured.tokens_per_minute):
                taken = await self._take(rates, candidate, visit.prepared)
                if isinstance(taken, NoRoom):
                    permit.abandoned()
                    return _no_room(taken)
                take = taken
            began = time.perf_counter()
            record.provider, record.model = configured.provider.name, candidate.model.name
            answer = await visit.prepared.attempt(configured.provider, self._exchange.held)
        except AttemptFailed as failed:
            permit.failed(failed.failure.kind)
            self._providers.on_outcome(candidate.name, failed.failure.kind, (time.perf_counter() - began) * 1000)
            if take is not None:
                take.unused(reached_provider=failed.failure.kind is not FailureKind.CONNECTION)
            return self._failed(visit, failed, began)
        except BaseException:
            permit.abandoned()
            raise
        self._note(visit, began, outcome="answered", status=answer.status)
        self._answered_by(candidate)
        record.prompt_cache_marks = visit.prepared.cache_marks
        if visit.prepared.translated is not None:
            record.dropped = visit.prepared.translated.losses.names
        return Answered(candidate, answer, permit=permit, take=take)

    def _failed(self, visit: _Visit, failed: AttemptFailed, began: float) -> Answered | Failure:
        """A failed attempt: final where the request itself is refused."""
        failure, candidate = failed.failure, visit.candidate
        self._note(visit, began, outcome=failure.kind, status=failure.status, detail=failure.detail)
        if failed.answer is None:
            return failure
        shown = self._preparing.shown(visit.prepared, failure, failed.answer)
        answered = Answered(candidate, shown, error=failure.kind)
        retry = candidate.configured.retry
        if failure.decision(others_left=visit.others_left, retry_on_timeout=retry.on_timeout) is Decision.GIVE_UP:
            self._answered_by(candidate)
            return answered
        self._last_error = answered
        return failure

    def _note(self, visit: _Visit, began: float, *, outcome: str, status: int | None, detail: str = "") -> None:
        candidate = visit.candidate
        milliseconds = (time.perf_counter() - began) * 1000
        waited_milliseconds = visit.waited_seconds * 1000
        self._record.attempts.append(
            Attempt(candidate.name, outcome, status, milliseconds, detail, candidate.model.name, waited_milliseconds)
        )

    def _answered_by(self, candidate: Candidate) -> None:
        record = self._record
        name = candidate.configured.provider.name
        record.provider, record.model = name, candidate.model.name
        record.answered_by = (name, candidate.send_model or self._parsed.model)
        record.downgraded_from = self._parsed.model if candidate.steps_down else ""

    async def _take(self, rates: ProviderRates, candidate: Candidate, prepared: Prepared) -> Take | NoRoom | None:
        """A share of what the provider grants the fleet; None where the store is away."""
        configured = candidate.configured
        rate = GrantedRate(
            requests_per_minute=configured.requests_per_minute, tokens_per_minute=configured.tokens_per_minute
        )
        output_tokens = prepared.parsed.max_output_tokens
        if output_tokens is None:
            output_tokens = candidate.model.max_output_tokens or USUAL_OUTPUT_TOKENS
        tokens = prepared.parsed.input_tokens_estimate + min(output_tokens, USUAL_OUTPUT_TOKENS)
        return await rates.take(configured.identity, rate, tokens=tokens)

    # --- nobody

    def _skip(self, candidate: Candidate, reason: str) -> Skipped:
        skipped = Skipped(candidate.name, candidate.model.name, reason)
        self._record.skipped.append(skipped)
        return skipped

    def _may_come_again(self, seconds: float) -> None:
        """When it may be worth while to come again: the earliest that was told."""
        if self._earliest_seconds is None or seconds < self._earliest_seconds:
            self._earliest_seconds = seconds

    def _nobody_answered(self) -> NoProviderAvailable:
        record = self._record
        told = [f"{one.provider}: {one.detail}" for one in record.attempts]
        told += [f"{one.provider} was not asked: {one.reason}" for one in record.skipped]
        retry_after = RETRY_AFTER_MILLISECONDS
        if self._earliest_seconds is not None:
            retry_after = max(retry_after, int(self._earliest_seconds * 1000))
        error = NoProviderAvailable(
            f"no provider answered ({'; '.join(told)})",
            details={
                "attempts": [{"provider": one.provider, "reason": one.outcome} for one in record.attempts],
                "skipped": [{"provider": one.provider, "reason": one.reason} for one in record.skipped],
            },
            retry_after_milliseconds=retry_after,
        )
        passing = any(one.outcome not in _LASTING for one in record.attempts)
        comes_back = passing or self._earliest_seconds is not None
        error.should_retry = comes_back and retry_after <= BRIEF_WAIT_MILLISECONDS
        return error


def _no_room(refused: NoRoom) -> Failure:
    detail = "the fleet has used up what its rateLimits grant"
    return Failure(FailureKind.RATE_LIMITED, detail, code=NO_ROOM, retry_after_seconds=refused.wait_seconds)
