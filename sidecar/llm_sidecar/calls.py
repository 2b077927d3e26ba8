"""A call to one of the APIs: read → route → authorise → cache → reserve → attempt… → relay → settle."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from llm_sidecar.asking import Answered, Asking
from llm_sidecar.body import hold_parsed, read_body
from llm_sidecar.caching import CacheTurn, Question
from llm_sidecar.contract.names import RequestType
from llm_sidecar.embedding_lookup import look_up
from llm_sidecar.errors import MalformedBody, NoProviderAvailable, Overloaded
from llm_sidecar.failover.attempt import LargeAnswer, OpenStream, PlainAnswer
from llm_sidecar.flying import FlightWriter, Flying, Passenger
from llm_sidecar.formats.base import Call, Format, MalformedRequest, ParsedRequest, Usage
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.headers import to_application
from llm_sidecar.keeping import Keeping
from llm_sidecar.optimization.clamp import clamped
from llm_sidecar.prices import prices
from llm_sidecar.record import RequestRecord, Saving
from llm_sidecar.relay import StreamRelay, relay_pieces
from llm_sidecar.replies import answer_headers
from llm_sidecar.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from llm_sidecar.cache.flight import Flight
    from llm_sidecar.embedding_lookup import EmbeddingLookup
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.breaker import Permit
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.known_providers import Providers
    from llm_sidecar.providers.base import Timeouts

REFUSALS: Final = frozenset(
    {FailureKind.INVALID_REQUEST, FailureKind.CONTENT_POLICY, FailureKind.TOO_LONG, FailureKind.NOT_FOUND}
)
"""The provider took the request and found it wrong: it counts as a request, and no token was spent."""
USAGE_TAIL_BYTES: Final = 64 * 1024
"""How much of a large answer's end is kept to look for its usage: the APIs tell it after the content."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one call asks for, and what it spends."""

    exchange: Exchange
    parsed: ParsedRequest
    wire: Format
    spending: Spending
    turn: CacheTurn
    """At the cache, which was asked in vain."""
    flight: Flight | None = None
    """Others who want the same answer."""
    lookup: EmbeddingLookup | None = None
    """Of an embeddings request, which of its vectors are there: some are not."""

    @property
    def record(self) -> RequestRecord:
        """The request's record."""
        return self.exchange.record


class Calls:
    """Answers calls. Answers that are still being stored are the only thing it remembers between them."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers
        self._keeping = Keeping()
        self._flying = Flying()

    async def answer(self, exchange: Exchange, call: Call) -> web.StreamResponse:
        """Answer one call. Raises a `SidecarError`."""
        record = exchange.record
        record.api, record.type = call.api, call.type
        wire = FORMATS[call.api]
        body = await read_body(exchange.request, exchange.held)
        cache = exchange.serving.cache
        known = cache.known_requests.find(call, body, exchange.query, exchange.headers) if cache is not None else None
        if known is not None:
            parsed, digest = known
        else:
            hold_parsed(exchange.held, body)
            parsed, digest = _parsed(exchange, wire, call, body), None
        del body  # what is sent may be another one
        record.stream = parsed.stream
        question = Question(exchange, parsed, digest)
        candidates = exchange.serving.runtime.candidates(parsed, lot=question.digest)
        record.model = candidates[0].model.name
        if call.type is RequestType.EMBEDDINGS:
            lookup = await look_up(exchange, parsed, candidates[0], question.directives)
            if lookup is not None:
                return await self._embed(exchange, parsed, candidates, question, lookup)
        turn = CacheTurn(exchange, parsed, candidates, question)
        hit = await turn.look_up(self._providers.is_shut)
        if hit is not None:
            return hit
        ask = partial(self._call, exchange, parsed, candidates, turn)
        if not turn.may_be_shared:
            return await ask(None)
        timeouts = candidates[0].configured.provider.timeouts
        passenger = Passenger(exchange=exchange, parsed=parsed, wire=wire, timeouts=timeouts)
        return await self._flying.answer(passenger, _flight_key(exchange, parsed, turn), ask)

    async def _embed(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        candidates: Sequence[Candidate],
        question: Question,
        lookup: EmbeddingLookup,
    ) -> web.StreamResponse:
        """Answer a batch, vector by vector."""
        if lookup.is_complete:
            return lookup.reply(exchange.record)
        turn = CacheTurn(exchange, parsed, candidates, question, by_items=True)
        exchange.record.cache = "miss"
        turn.not_cached()
        ask = partial(self._call, exchange, parsed, candidates, turn, lookup=lookup)
        if question.directives.want_newer:
            return await ask(None)
        timeouts = candidates[0].configured.provider.timeouts
        passenger = Passenger(exchange=exchange, parsed=parsed, wire=FORMATS[parsed.call.api], timeouts=timeouts)
        return await self._flying.answer(passenger, (exchange.serving.runtime.config_hash, *lookup.shared_under), ask)

    async def _call(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        candidates: Sequence[Candidate],
        turn: CacheTurn,
        flight: Flight | None,
        *,
        lookup: EmbeddingLookup | None = None,
    ) -> web.StreamResponse:
        """Reserve, ask, settle. With a flight, a stream goes there, and what this returns is nobody's reply."""
        spending, plan = await Spending.begin(
            exchange.serving.quota,
            exchange.record,
            parsed,
            candidates,
            lambda: exchange.serving.runtime.cheaper(parsed, candidates[0]),
        )
        try:
            asked = Asked(exchange, parsed, FORMATS[parsed.call.api], spending, turn, flight, lookup)
            if lookup is not None and lookup.is_partial:
                return await self._ask_for_rest(asked, plan, lookup)
            return await self._ask_providers(asked, plan)
        finally:
            spending.end()

    async def _ask_for_rest(
        self, asked: Asked, candidates: Sequence[Candidate], lookup: EmbeddingLookup
    ) -> web.StreamResponse:
        """Ask for what is new: none but the one whose vectors the others are, for no other's fit to them.

        Where that gives nothing that can be put together, the whole batch is asked for.
        """
        whole = replace(asked, lookup=None)
        if candidates[0] is not lookup.candidate:
            return await self._ask_providers(whole, candidates)
        rest = lookup.rest(asked.parsed)
        asking = Asking(asked.exchange, rest, asked.wire, self._providers, asked.spending.moves_to)
        others = candidates[1:]
        try:
            answered = await asking.ask(candidates[:1])
        except (NoProviderAvailable, MalformedBody):
            if not others:
                asked.spending.nobody_answered()
                raise
            return await self._ask_providers(whole, others)
        permit, answer = answered.permit, answered.answer
        if permit is None:
            if others and answered.error not in REFUSALS:
                return await self._ask_providers(whole, others)
            return await self._relay_error(asked, answered)
        vectors = lookup.vectors(answer.body) if isinstance(answer, PlainAnswer) else None
        if answered.take is not None:
            answered.take.used(rest.input_tokens_estimate)
        if vectors is None or not isinstance(answer, PlainAnswer):
            permit.succeeded()
            if not isinstance(answer, PlainAnswer):
                answer.response.close()
            usage = answer.usage if isinstance(answer, PlainAnswer) else None
            asked.spending.answered_in_vain(usage, rest)
            return await self._ask_providers(whole, candidates)
        asked.spending.answered_rest(answer.usage, rest)
        together = lookup.together(answer, vectors)
        try:
            asked.exchange.held.take(max(0, len(together.body) - len(answer.body)))
        except Overloaded:
            permit.abandoned()
            raise
        lookup.note_saving(asked.record)
        reply = await self._relay(whole, answered.candidate, together, permit)
        self._share(asked, self._keeping.start(lookup.keep(vectors, answer.usage)))
        return reply

    async def _ask_providers(self, asked: Asked, candidates: Sequence[Candidate]) -> web.StreamResponse:
        asking = Asking(asked.exchange, asked.parsed, asked.wire, self._providers, asked.spending.moves_to)
        try:
            answered = await asking.ask(candidates)
        except (NoProviderAvailable, MalformedBody):
            asked.spending.nobody_answered()
            cached = await asked.turn.reply_after_failure()
            if cached is None:
                raise
            return cached
        if answered.permit is None:
            return await self._relay_error(asked, answered)
        try:
            return await self._relay(asked, answered.candidate, answered.answer, answered.permit)
        finally:
            _note_prompt_caching(asked.record, answered.candidate)
            if answered.take is not None:
                answered.take.used(asked.spending.spent_tokens)

    async def _relay_error(self, asked: Asked, answered: Answered) -> web.Response:
        """An error of a provider's that is the application's, or the last of those that all providers gave."""
        answer = answered.answer
        if not isinstance(answer, PlainAnswer):
            raise TypeError("an error is a plain answer")  # never so; for the type checker
        if answered.error in REFUSALS:
            asked.spending.refused_by_provider()
            return _plain_reply(answer, asked.record)
        asked.spending.nobody_answered()
        return await asked.turn.reply_after_failure() or _plain_reply(answer, asked.record)

    async def _relay(
        self, asked: Asked, candidate: Candidate, opened: PlainAnswer | LargeAnswer | OpenStream, permit: Permit
    ) -> web.StreamResponse:
        if isinstance(opened, PlainAnswer):
            permit.succeeded()
            self._providers.on_outcome(candidate.name, None, asked.record.attempts[-1].milliseconds)
            return self._relay_plain(asked, candidate, opened)
        timeouts = candidate.configured.provider.timeouts
        try:
            permit.committed()
            if isinstance(opened, LargeAnswer):
                if asked.flight is not None:
                    asked.flight.fail()  # it is never held whole, so there is nothing to share
                return await _relay_large(asked, opened, timeouts)
            asked.record.first_content = time.perf_counter()
            asked.spending.streaming(opened.observer)
            relay = StreamRelay(opened, timeouts, asked.exchange.held, on_progress=asked.spending.progress)
            if asked.flight is None:
                return await relay.run(asked.exchange.request, asked.record)
            writer = FlightWriter(asked.flight, opened.status, opened.headers, asked.record)
            last, _ = await relay.write_to(writer, asked.record)
            return writer.end(last, is_complete=not asked.record.interrupted)
        finally:
            self._tell(permit, candidate, asked.record)
            opened.response.close()
            if isinstance(opened, OpenStream):
                asked.spending.stream_ended()
                self._share(asked, self._keeping.stream(asked.turn, candidate, opened))

    def _tell(self, permit: Permit, candidate: Candidate, record: RequestRecord) -> None:
        """How an answer that had begun has ended."""
        if record.client_gone:
            permit.abandoned()
        elif record.interrupted:
            permit.failed(FailureKind.INTERRUPTED)
            self._providers.on_outcome(candidate.name, FailureKind.INTERRUPTED, 0.0)
        else:
            permit.succeeded()
            self._providers.on_outcome(candidate.name, None, record.attempts[-1].milliseconds)

    def _relay_plain(self, asked: Asked, candidate: Candidate, answer: PlainAnswer) -> web.Response:
        asked.spending.answered(answer.usage, answer_bytes=len(answer.body))
        flight = asked.flight
        if flight is not None:
            flight.told = asked.record
            flight.land(answer.status, answer.headers, answer.body)
        self._share(asked, self._store(asked, candidate, answer))
        return _plain_reply(answer, asked.record)

    def _store(self, asked: Asked, candidate: Candidate, answer: PlainAnswer) -> asyncio.Task[bool] | None:
        lookup = asked.lookup
        if lookup is None:
            return self._keeping.plain(asked.turn, candidate, answer)
        vectors = lookup.vectors(answer.body) if candidate is lookup.candidate else None
        return None if vectors is None else self._keeping.start(lookup.keep(vectors, answer.usage))

    def _share(self, asked: Asked, storing: asyncio.Task[bool] | None) -> None:
        if asked.flight is not None and storing is not None:
            asked.flight.stay(storing)

    async def close(self) -> None:
        """Wait for answers that are still being stored."""
        await self._keeping.close()


def _parsed(exchange: Exchange, wire: Format, call: Call, body: bytes) -> ParsedRequest:
    """The request, as the team's clamp lets it go. From here on it is the one that counts, for cache and quota too."""
    try:
        asked = wire.parse_request(call, body)
        parsed = clamped(asked, exchange.serving.runtime.optimization.max_output_tokens)
    except MalformedRequest as error:
        raise MalformedBody(str(error)) from error
    if parsed is not asked:
        exchange.record.output_clamped_tokens = parsed.max_output_tokens or 0
    return parsed


def _note_prompt_caching(record: RequestRecord, candidate: Candidate) -> None:
    """What the marks in the prompt brought; what a provider's cache does by itself is not our saving."""
    usage = record.usage
    if not record.prompt_cache_marks or usage is None:
        return
    pricing = candidate.model.pricing
    nano_usd = prices(pricing).spared_by_prompt_cache_nano_usd(usage) if pricing is not None else 0
    record.savings += (Saving("prompt_caching", usage.cache_read_tokens or 0, nano_usd),)


def _flight_key(exchange: Exchange, parsed: ParsedRequest, turn: CacheTurn) -> Hashable:
    """Who may share an answer: those who ask for the same, under the same configuration, delivered in the same way."""
    options: Hashable
    try:
        options = orjson.dumps(parsed.document.get("stream_options"), option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # nested deeper than it writes: equal to none
        options = object()
    delivery = (parsed.stream, parsed.call.stream_is_json_array, options)
    return (exchange.serving.runtime.config_hash, turn.shared_under, delivery)


# --- answers


def _plain_reply(answer: PlainAnswer, record: RequestRecord) -> web.Response:
    record.status = answer.status
    headers = answer_headers(to_application(answer.headers), record)
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def _relay_large(asked: Asked, opened: LargeAnswer, timeouts: Timeouts) -> web.StreamResponse:
    reply, tail = await relay_pieces(
        asked.exchange.request,
        status=opened.status,
        headers=opened.headers,
        first=opened.beginning,
        response=opened.response,
        idle_seconds=timeouts.idle,
        total_seconds=timeouts.response,
        record=asked.record,
        tail_bytes=USAGE_TAIL_BYTES,
    )
    asked.spending.answered(_usage_at_end(asked, tail), answer_bytes=0)
    return reply


def _usage_at_end(asked: Asked, tail: bytes) -> Usage | None:
    """Usage from the end of an answer that was too large to hold: all that follows it is small."""
    for name in (b'"usage"', b'"usageMetadata"'):
        start = tail.rfind(name)
        if start >= 0 and (usage := asked.wire.usage(asked.parsed.call, b"{" + tail[start:])) is not None:
            return usage
    return None
