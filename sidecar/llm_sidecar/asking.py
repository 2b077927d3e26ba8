"""Asking providers for one answer: candidate after candidate, each as often as is worth it, until one answers.

What is remembered beyond one request stands in `Providers`: circuit breakers and retry budgets of this process.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from llm_sidecar.errors import MalformedBody, NoProviderAvailable
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
from llm_sidecar.failover.failures import DECISIONS, Decision, Failure
from llm_sidecar.failover.gate import unfit
from llm_sidecar.failover.retry_budget import LocalRetries, RetryBudget
from llm_sidecar.formats.base import MalformedRequest, ParsedRequest
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.providers.base import ProviderRequest
from llm_sidecar.record import Attempt, RequestRecord, Skipped
from llm_sidecar.translated_call import Translations
from llm_sidecar.translation.losses import Undecodable, Untranslatable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


class Providers:
    """What this process remembers of its providers between requests."""

    def __init__(self, *, on_circuit: OnState, draw: Draw = random.random) -> None:
        self.breakers = CircuitBreakers(on_state=on_circuit)
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
    permit: Permit | None
    """None for an error that is the application's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A request, ready to be sent to one candidate."""

    request: ProviderRequest
    parsed: ParsedRequest
    wire: Format
    observe: Callable[[], StreamObserver]
    translated: TranslatedCall | None


class Asking:
    """Asks for one request's answer."""

    def __init__(self, exchange: Exchange, parsed: ParsedRequest, wire: Format, providers: Providers) -> None:
        self._exchange = exchange
        self._record: RequestRecord = exchange.record
        self._parsed = parsed
        self._wire = wire
        self._providers = providers
        self._translations: Translations | None = None
        self._last_error: tuple[Candidate, PlainAnswer] | None = None
        self._earliest_probe_seconds: float | None = None

    async def ask(self, candidates: Sequence[Candidate]) -> Answered:
        """The first answer, which may be an error that is the application's. Raises `NoProviderAvailable`."""
        reasons = unfit(candidates, self._parsed) if len(candidates) > 1 else {}
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
            answered = await self._ask_one(candidate, prepared, others_left=others_left)
            if answered is not None:
                return answered
        if self._last_error is None:
            raise self._nobody_answered()
        candidate, answer = self._last_error
        self._answered_by(candidate)
        return Answered(candidate=candidate, answer=answer, permit=None)

    async def _ask_one(self, candidate: Candidate, prepared: _Prepared, *, others_left: bool) -> Answered | None:
        """Ask one candidate as often as is worth it; None where another is to be asked."""
        record = self._record
        breaker = self._providers.breaker(candidate)
        retries: LocalRetries | None = None
        waited_seconds = 0.0
        while True:
            permit = breaker.admit(gently=others_left)
            if isinstance(permit, NotAdmitted):
                self._not_admitted(candidate, permit, breaker)
                return None
            if retries is None:
                retries = self._providers.retries(candidate.configured, sdk_retries=record.sdk_retry_count)
            record.provider, record.model = candidate.name, candidate.model.name
            began = time.perf_counter()
            try:
                answer = await self._attempt(candidate, prepared)
            except AttemptFailed as failed:
                failure = failed.failure
                permit.failed(failure.kind)
                self._note(
                    candidate, began, waited_seconds, outcome=failure.kind, status=failure.status, failure=failure
                )
                if DECISIONS[failure.kind] is Decision.GIVE_UP and failed.answer is not None:
                    self._answered_by(candidate)
                    return Answered(candidate=candidate, answer=self._shown(prepared, failed), permit=None)
                if failed.answer is not None:
                    self._last_error = (candidate, self._shown(prepared, failed))
                pause_seconds = retries.pause_seconds(failure, others_left=others_left)
                if pause_seconds is None:
                    return None
                await asyncio.sleep(pause_seconds)
                waited_seconds = pause_seconds
                continue
            except BaseException:
                permit.abandoned()
                raise
            self._note(candidate, began, waited_seconds, outcome="answered", status=answer.status)
            self._answered_by(candidate)
            if prepared.translated is not None:
                record.dropped = prepared.translated.losses.names
            return Answered(candidate=candidate, answer=answer, permit=permit)

    def _note(
        self,
        candidate: Candidate,
        began: float,
        waited_seconds: float,
        *,
        outcome: str,
        status: int | None,
        failure: Failure | None = None,
    ) -> None:
        milliseconds = (time.perf_counter() - began) * 1000
        detail = failure.detail if failure is not None else ""
        model = candidate.model.name
        attempt = Attempt(candidate.name, outcome, status, milliseconds, detail, model, waited_seconds * 1000)
        self._record.attempts.append(attempt)

    def _answered_by(self, candidate: Candidate) -> None:
        record = self._record
        record.provider, record.model = candidate.name, candidate.model.name
        record.answered_by = (candidate.name, candidate.answering_model(self._parsed.model))

    # --- one attempt

    def _prepare(self, candidate: Candidate) -> _Prepared:
        """Raises `Untranslatable`, `MalformedBody`."""
        if candidate.api is self._parsed.call.api:
            return self._as_it_is(candidate)
        if self._translations is None:
            self._translations = Translations(self._parsed)
        translated = self._translations.to(candidate.api, model=candidate.answering_model(self._parsed.model))
        parsed, encoded = translated.parsed, translated.encoded
        request = ProviderRequest("POST", encoded.path, encoded.query, translated.headers, parsed.body)
        return _Prepared(
            request=request,
            parsed=parsed,
            wire=translated.wire,
            observe=lambda: translated.observe(max_frame_bytes=MAX_FRAME_BYTES),
            translated=translated,
        )

    def _as_it_is(self, candidate: Candidate) -> _Prepared:
        exchange, parsed, wire = self._exchange, self._parsed, self._wire
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

    def _shown(self, prepared: _Prepared, failed: AttemptFailed) -> PlainAnswer:
        """The provider's error as the application may see it, in the application's own language."""
        answer, failure = failed.answer, failed.failure
        if answer is None or prepared.translated is None:
            if answer is None:
                raise TypeError("only an answer can be shown")  # never so; for the type checker
            return answer
        hints = [(name, value) for name, value in answer.headers if name.lower() in _HINT_HEADERS]
        message = failure.message or f"the provider refused the request with status {answer.status}"
        body = self._wire.error_body(answer.status, failure.code or failure.kind, message, {})
        return PlainAnswer(answer.status, [*hints, ("Content-Type", "application/json")], body)

    # --- nobody

    def _skip(self, candidate: Candidate, reason: str) -> None:
        self._record.skipped.append(Skipped(candidate.name, candidate.model.name, reason))

    def _not_admitted(self, candidate: Candidate, reason: NotAdmitted, breaker: CircuitBreaker) -> None:
        self._skip(candidate, reason)
        seconds = breaker.probe_in_seconds
        if self._earliest_probe_seconds is None or seconds < self._earliest_probe_seconds:
            self._earliest_probe_seconds = seconds

    def _nobody_answered(self) -> NoProviderAvailable:
        record = self._record
        told = [f"{one.provider}: {one.detail}" for one in record.attempts]
        told += [f"{one.provider} was not asked: {one.reason}" for one in record.skipped]
        retry_after = RETRY_AFTER_MILLISECONDS
        if self._earliest_probe_seconds is not None:
            retry_after = max(retry_after, int(self._earliest_probe_seconds * 1000))
        error = NoProviderAvailable(
            f"no provider answered ({'; '.join(told)})",
            details={
                "attempts": [{"provider": one.provider, "reason": one.outcome} for one in record.attempts],
                "skipped": [{"provider": one.provider, "reason": one.reason} for one in record.skipped],
            },
            retry_after_milliseconds=retry_after,
        )
        passing = any(one.outcome not in _LASTING for one in record.attempts)
        error.should_retry = passing or self._earliest_probe_seconds is not None
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
