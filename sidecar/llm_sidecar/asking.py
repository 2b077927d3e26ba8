"""Asking providers for one answer: candidate after candidate, each as often as is worth it, until one answers.

What is remembered beyond one request stands in `Providers`: circuit breakers and retry budgets of this process.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from llm_sidecar.errors import BRIEF_WAIT_MILLISECONDS, MalformedBody, NoProviderAvailable
from llm_sidecar.failover.attempt import (
    MAX_FRAME_BYTES,
    AttemptFailed,
    LargeAnswer,
    OpenStream,
    PlainAnswer,
    attempt_plain,
    attempt_stream,
)
from llm_sidecar.failover.breaker import CircuitBreakers, Permit
from llm_sidecar.failover.circuit import NotAdmitted
from llm_sidecar.failover.failures import Decision, Failure
from llm_sidecar.failover.gate import unfit
from llm_sidecar.failover.retry_budget import LocalRetries, RetryBudget
from llm_sidecar.formats.base import MalformedRequest, ParsedRequest
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.providers.base import ProviderRequest
from llm_sidecar.quota.provider_rate import GrantedRate, NoRoom, Take
from llm_sidecar.record import Attempt, RequestRecord, Skipped
from llm_sidecar.translated_call import Translations, holds_foreign_marks
from llm_sidecar.translation.losses import Undecodable, Untranslatable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.breaker import CircuitBreaker, OnState
    from llm_sidecar.failover.routes import Candidate, ConfiguredProvider, Draw
    from llm_sidecar.formats.base import Format, StreamObserver
    from llm_sidecar.providers.base import Headers
    from llm_sidecar.translated_call import TranslatedCall

_LASTING: Final = frozenset({FailureKind.AUTHENTICATION, FailureKind.REDIRECTED, FailureKind.QUOTA_EXHAUSTED})
"""A key, an address or an account that is wrong now is still wrong in a second."""
_HINT_HEADERS: Final = frozenset({"retry-after", "retry-after-ms"})
RETRY_AFTER_MILLISECONDS: Final = 1000
NO_ROOM: Final = "rate_limits_used_up"
"""Why a candidate was skipped: see `quota/provider_rate.py`."""
USUAL_OUTPUT_TOKENS: Final = 1024
"""Of what a provider grants, no more output than this is taken ahead: most answers are shorter than their cap."""
OnOutcome = Callable[[str, FailureKind | None, float], object]
"""Called with a provider, why an attempt failed (None: it did not), and how many milliseconds it took."""


class Providers:
    """What this process remembers of its providers between requests."""

    def __init__(self, *, on_circuit: OnState, on_outcome: OnOutcome, draw: Draw = random.random) -> None:
        self.breakers = CircuitBreakers(on_state=on_circuit, draw=draw)
        self.on_outcome = on_outcome
        self.draw = draw
        self._budgets: dict[str, RetryBudget] = {}

    def breaker(self, candidate: Candidate) -> CircuitBreaker:
        """The breaker of a candidate's provider and model."""
        return self.breakers.of(candidate.name, candidate.model.name, settings=candidate.configured.circuit)

    def retries(self, configured: ConfiguredProvider, *, sdk_retries: int) -> LocalRetries:
        """What a request may do at a provider that it has just come to."""
        budget = self._budgets.get(configured.name)
        if budget is None:
            budget = self._budgets[configured.name] = RetryBudget()
        return LocalRetries(configured.retry, budget, sdk_retries=sdk_retries, draw=self.draw)

    def hint_failing(self, provider: str, model: str) -> None:
        """Somebody else's circuit for these opened; ours, if there is one, lets a single request find out."""
        self.breakers.hint_failing(provider, model)

    def keep(self, configured: Sequence[ConfiguredProvider]) -> list[tuple[str, str]]:
        """Forget the providers that a new configuration does not name; returns the forgotten circuits."""
        names = {one.name for one in configured}
        self._budgets = {name: budget for name, budget in self._budgets.items() if name in names}
        return self.breakers.keep({(one.name, model.name) for one in configured for model in one.models})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The candidate that answered, and how. Its permit is still to be told how a stream ended."""

    candidate: Candidate
    answer: PlainAnswer | LargeAnswer | OpenStream
    permit: Permit | None = None
    """None for an error."""
    error: FailureKind | None = None
    """Of an answer that is a provider's error."""
    take: Take | None = None
    """Of what the provider grants; still to be told what was used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A request, ready to be sent to one candidate."""

    request: ProviderRequest
    parsed: ParsedRequest
    wire: Format
    observe: Callable[[], StreamObserver]
    translated: TranslatedCall | None


@dataclass(slots=True)
class _Visit:
    """One request at one candidate, over all its attempts there."""

    candidate: Candidate
    prepared: _Prepared
    others_left: bool = field(kw_only=True)
    retries: LocalRetries | None = None
    waited_seconds: float = 0.0
    is_recovering: bool = False
    """It was spared, for its circuit has closed again only just now."""


class Asking:
    """Asks for one request's answer."""

    def __init__(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        wire: Format,
        providers: Providers,
        moves_to: Callable[[Candidate], Awaitable[str | None]],
    ) -> None:
        self._moves_to = moves_to
        self._exchange = exchange
        self._record: RequestRecord = exchange.record
        self._parsed = parsed
        self._wire = wire
        self._providers = providers
        self._translations: Translations | None = None
        self._last_error: Answered | None = None
        self._earliest_seconds: float | None = None

    async def ask(self, candidates: Sequence[Candidate]) -> Answered:
        """The first answer, which may be an error that is the application's. Raises `NoProviderAvailable`."""
        reasons = unfit(candidates, self._parsed) if len(candidates) > 1 else {}
        recovering: list[_Visit] = []
        for position, candidate in enumerate(candidates):
            if position in reasons:
                self._skip(candidate, reasons[position])
                continue
            try:
                prepared = self._prepare(candidate)
            except Untranslatable as error:
                self._skip(candidate, f"{candidate.api} cannot say {error.what}")
                continue
            others_left = any(later not in reasons for later in range(position + 1, len(candidates)))
            visit = _Visit(candidate, prepared, others_left=others_left)
            answered = await self._ask_one(visit)
            if answered is not None:
                return answered
            if visit.is_recovering:
                recovering.append(visit)
        for visit in recovering:  # spared while another could answer; now there is none
            visit.others_left = False
            answered = await self._ask_one(visit)
            if answered is not None:
                return answered
        if self._last_error is None:
            raise self._nobody_answered()
        self._answered_by(self._last_error.candidate)
        return self._last_error

    async def _ask_one(self, visit: _Visit) -> Answered | None:
        """Ask one candidate as often as is worth it; None where another is to be asked."""
        while True:
            outcome = await self._ask_once(visit)
            if not isinstance(outcome, Failure):
                return outcome
            pause_seconds = self._retries(visit).pause_seconds(outcome, others_left=visit.others_left)
            if pause_seconds is None:
                if outcome.code == NO_ROOM:
                    self._skip(visit.candidate, NO_ROOM)
                    self._may_come_again(outcome.retry_after_seconds or 0.0)
                return None
            await asyncio.sleep(pause_seconds)
            visit.waited_seconds = pause_seconds

    def _retries(self, visit: _Visit) -> LocalRetries:
        if visit.retries is None:
            visit.retries = self._providers.retries(
                visit.candidate.configured, sdk_retries=self._record.sdk_retry_count
            )
        return visit.retries

    async def _ask_once(self, visit: _Visit) -> Answered | Failure | None:
        """One attempt. None where the circuit lets nothing through."""
        candidate = visit.candidate
        breaker = self._providers.breaker(candidate)
        permit = breaker.admit(gently=visit.others_left)
        if isinstance(permit, NotAdmitted):
            visit.is_recovering = permit is NotAdmitted.RECOVERING
            self._skip(candidate, permit)
            self._may_come_again(breaker.probe_in_seconds)
            return None
        self._retries(visit)
        why_not = await self._reserved_for(candidate, permit)
        if why_not is not None:
            self._skip(candidate, why_not)
            return None
        take: Take | None = None
        began = time.perf_counter()
        try:
            taken = await self._take(candidate, visit.prepared)
            if isinstance(taken, NoRoom):
                permit.abandoned()
                detail = "the fleet has used up what its rateLimits grant"
                return Failure(FailureKind.RATE_LIMITED, detail, code=NO_ROOM, retry_after_seconds=taken.wait_seconds)
            take = taken
            began = time.perf_counter()
            self._record.provider, self._record.model = candidate.name, candidate.model.name
            answer = await self._attempt(candidate, visit.prepared)
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
        if visit.prepared.translated is not None:
            self._record.dropped = visit.prepared.translated.losses.names
        return Answered(candidate=candidate, answer=answer, permit=permit, take=take)

    async def _reserved_for(self, candidate: Candidate, permit: Permit) -> str | None:
        """See that the team's quota holds what this candidate may take. Returns why it must not be asked, or None."""
        try:
            why_not = await self._moves_to(candidate)
        except BaseException:
            permit.abandoned()
            raise
        if why_not is not None:
            permit.abandoned()
        return why_not

    def _failed(self, visit: _Visit, failed: AttemptFailed, began: float) -> Answered | Failure:
        """A failed attempt: final where the request itself is refused."""
        failure, candidate = failed.failure, visit.candidate
        self._note(visit, began, outcome=failure.kind, status=failure.status, detail=failure.detail)
        if failed.answer is None:
            return failure
        shown = self._shown(visit.prepared, failure, failed.answer)
        retry = candidate.configured.retry
        if failure.decision(others_left=visit.others_left, retry_on_timeout=retry.on_timeout) is Decision.GIVE_UP:
            self._answered_by(candidate)
            return Answered(candidate=candidate, answer=shown, error=failure.kind)
        self._last_error = Answered(candidate=candidate, answer=shown, error=failure.kind)
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
        record.provider, record.model = candidate.name, candidate.model.name
        record.answered_by = (candidate.name, candidate.answering_model(self._parsed.model))
        record.downgraded_from = self._parsed.model if candidate.steps_down else ""

    # --- one attempt

    def _prepare(self, candidate: Candidate) -> _Prepared:
        """Raises `Untranslatable`, `MalformedBody`."""
        is_native = candidate.api is self._parsed.call.api
        if is_native and not holds_foreign_marks(self._parsed):
            return self._as_it_is(candidate, self._parsed)
        if self._translations is None:
            self._translations = Translations(self._parsed)
        translated = self._translations.to(candidate.api, model=candidate.answering_model(self._parsed.model))
        if is_native:  # without what other providers gave the application to keep for them
            return self._as_it_is(candidate, translated.parsed)
        parsed, encoded = translated.parsed, translated.encoded
        request = ProviderRequest("POST", encoded.path, encoded.query, translated.headers, parsed.body)
        return _Prepared(
            request=request,
            parsed=parsed,
            wire=translated.wire,
            observe=lambda: translated.observe(max_frame_bytes=MAX_FRAME_BYTES),
            translated=translated,
        )

    def _as_it_is(self, candidate: Candidate, parsed: ParsedRequest) -> _Prepared:
        exchange, wire = self._exchange, self._wire
        ask_for_usage = parsed.stream and candidate.configured.asks_for_stream_usage
        try:
            splices = wire.splices(parsed, model=candidate.send_model, ask_for_usage=ask_for_usage)
        except MalformedRequest as error:  # what a plain look did not show: nested too deep to find a member's place
            raise MalformedBody(str(error)) from error
        body = apply_splices(parsed.body, splices) if splices else parsed.body
        path = wire.upstream_path(parsed.call, candidate.send_model)
        return _Prepared(
            request=ProviderRequest("POST", path, exchange.query, exchange.headers, body),
            parsed=parsed,
            wire=wire,
            observe=lambda: wire.observe_stream(parsed, hide_usage=ask_for_usage, max_frame_bytes=MAX_FRAME_BYTES),
            translated=None,
        )

    async def _attempt(self, candidate: Candidate, prepared: _Prepared) -> PlainAnswer | LargeAnswer | OpenStream:
        provider, held = candidate.configured.provider, self._exchange.held
        if self._parsed.stream:
            opened = await attempt_stream(
                provider, prepared.request, prepared.parsed, prepared.wire, held, observe=prepared.observe
            )
            return opened if prepared.translated is None else replace(opened, headers=self._stream_headers())
        answer = await attempt_plain(provider, prepared.request, prepared.parsed, prepared.wire, held)
        return answer if prepared.translated is None else _brought_back(answer, prepared.translated)

    def _stream_headers(self) -> Headers:
        is_array = self._parsed.call.stream_is_json_array
        return [("Content-Type", "application/json" if is_array else "text/event-stream; charset=utf-8")]

    def _shown(self, prepared: _Prepared, failure: Failure, answer: PlainAnswer) -> PlainAnswer:
        """The provider's error in the application's own language."""
        if prepared.translated is None:
            return answer
        hints = [(name, value) for name, value in answer.headers if name.lower() in _HINT_HEADERS]
        message = failure.message or f"the provider refused the request with status {answer.status}"
        body = self._wire.error_body(answer.status, failure.code or failure.kind, message, {})
        return PlainAnswer(answer.status, [*hints, ("Content-Type", "application/json")], body)

    # --- nobody

    def _skip(self, candidate: Candidate, reason: str) -> None:
        self._record.skipped.append(Skipped(candidate.name, candidate.model.name, reason))

    async def _take(self, candidate: Candidate, prepared: _Prepared) -> Take | NoRoom | None:
        """A share of what the provider grants the fleet; None where it names no limits, or the store is away."""
        configured, rates = candidate.configured, self._exchange.serving.rates
        if rates is None or not (configured.requests_per_minute or configured.tokens_per_minute):
            return None
        rate = GrantedRate(
            requests_per_minute=configured.requests_per_minute, tokens_per_minute=configured.tokens_per_minute
        )
        output_tokens = prepared.parsed.max_output_tokens
        if output_tokens is None:
            output_tokens = candidate.model.max_output_tokens or USUAL_OUTPUT_TOKENS
        tokens = prepared.parsed.input_tokens_estimate + min(output_tokens, USUAL_OUTPUT_TOKENS)
        return await rates.take(configured.identity, rate, tokens=tokens)

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


def _brought_back(answer: PlainAnswer | LargeAnswer, translated: TranslatedCall) -> PlainAnswer:
    """A whole answer in the application's language. Raises `AttemptFailed`."""
    if isinstance(answer, LargeAnswer):
        answer.response.close()
        raise AttemptFailed(Failure(FailureKind.GARBLED_ANSWER, "its answer is too large to be translated"))
    try:
        body = translated.answer(answer.body)
    except Undecodable as error:
        raise AttemptFailed(Failure(FailureKind.GARBLED_ANSWER, f"its answer cannot be read: {error}")) from error
    except Untranslatable as error:
        detail = f"its answer holds {error.what}, which the application's API cannot say"
        raise AttemptFailed(Failure(FailureKind.GARBLED_ANSWER, detail)) from error
    return PlainAnswer(answer.status, [("Content-Type", "application/json")], body, answer.usage)
