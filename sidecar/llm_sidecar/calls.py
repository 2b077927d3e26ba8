"""A call to one of the APIs: read → route → authorise → cache → reserve → attempt… → relay → settle."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llm_sidecar.asking import Answered, Asking
from llm_sidecar.body import hold_parsed, read_body
from llm_sidecar.cache.answers import CachedAnswer
from llm_sidecar.cache.key import cache_digest
from llm_sidecar.errors import MalformedBody, NoProviderAvailable
from llm_sidecar.failover.attempt import LargeAnswer, OpenStream, PlainAnswer
from llm_sidecar.formats.base import Call, Format, MalformedRequest, ParsedRequest, Usage
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.headers import to_application
from llm_sidecar.record import RequestRecord
from llm_sidecar.relay import StreamRelay, relay_pieces
from llm_sidecar.replies import answer_headers
from llm_sidecar.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.cache.answers import AnswerCache
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
class CacheEntry:
    """Where an answer of `candidate` is, or will be."""

    cache: AnswerCache
    candidate: Candidate
    digest: str
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What one call asks for, and what it spends."""

    exchange: Exchange
    parsed: ParsedRequest
    wire: Format
    spending: Spending
    entry: CacheEntry | None
    """Where the cache was asked, in vain."""

    @property
    def record(self) -> RequestRecord:
        """The request's record."""
        return self.exchange.record


class Calls:
    """Answers calls. Answers that are still being stored are the only thing it remembers between them."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers
        self._storing: set[asyncio.Task[bool]] = set()

    async def answer(self, exchange: Exchange, call: Call) -> web.StreamResponse:
        """Answer one call. Raises a `SidecarError`."""
        record = exchange.record
        record.api, record.type = call.api, call.type
        wire = FORMATS[call.api]
        body = await read_body(exchange.request, exchange.held)
        hold_parsed(exchange.held, body)
        try:
            parsed = wire.parse_request(call, body)
        except MalformedRequest as error:
            raise MalformedBody(str(error)) from error
        record.stream = parsed.stream
        candidates = exchange.serving.runtime.candidates(parsed)
        record.model = candidates[0].model.name
        entry = _entry(exchange, parsed, candidates[0])
        hit = await _from_cache(exchange, parsed, entry)
        if hit is not None:
            return hit
        spending, plan = await Spending.begin(
            exchange.serving.quota,
            record,
            parsed,
            candidates,
            lambda: exchange.serving.runtime.cheaper(parsed, candidates[0]),
        )
        try:
            return await self._ask_providers(Asked(exchange, parsed, wire, spending, entry), plan)
        finally:
            spending.end()

    async def _ask_providers(self, asked: Asked, candidates: Sequence[Candidate]) -> web.StreamResponse:
        asking = Asking(asked.exchange, asked.parsed, asked.wire, self._providers, asked.spending.moves_to)
        try:
            answered = await asking.ask(candidates)
        except (NoProviderAvailable, MalformedBody):
            asked.spending.nobody_answered()
            raise
        if answered.permit is None:
            return self._relay_error(asked, answered)
        try:
            return await self._relay(asked, answered.candidate, answered.answer, answered.permit)
        finally:
            if answered.take is not None:
                answered.take.used(asked.spending.spent_tokens)

    def _relay_error(self, asked: Asked, answered: Answered) -> web.Response:
        """An error of a provider's that is the application's, or the last of those that all providers gave."""
        answer = answered.answer
        if not isinstance(answer, PlainAnswer):
            raise TypeError("an error is a plain answer")  # never so; for the type checker
        if answered.error in REFUSALS:
            asked.spending.refused_by_provider()
        else:
            asked.spending.nobody_answered()
        return _plain_reply(answer, asked.record)

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
                return await _relay_large(asked, opened, timeouts)
            asked.record.first_content = time.perf_counter()
            asked.spending.streaming(opened.observer)
            relay = StreamRelay(opened, timeouts, asked.exchange.held, on_progress=asked.spending.progress)
            return await relay.run(asked.exchange.request, asked.record)
        finally:
            self._tell(permit, candidate, asked.record)
            opened.response.close()
            if isinstance(opened, OpenStream):
                asked.spending.stream_ended()

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
        self._keep(asked, candidate, answer)
        return _plain_reply(answer, asked.record)

    def _keep(self, asked: Asked, candidate: Candidate, answer: PlainAnswer) -> None:
        """Store an answer, under the one who gave it, without keeping the application waiting."""
        if answer.status != 200 or not asked.wire.is_complete(asked.parsed.call, answer.body):
            return
        entry = asked.entry
        if entry is None or entry.candidate is not candidate:
            entry = _entry(asked.exchange, asked.parsed, candidate)  # answered by another than the one looked up
        if entry is None:
            return
        content_type = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
        kept = CachedAnswer(
            answer.body,
            content_type or "application/json",
            answer.usage,
            time.time(),
            dropped=tuple(asked.record.dropped),
        )
        task = asyncio.get_running_loop().create_task(
            entry.cache.keep(entry.digest, kept, ttl_seconds=entry.ttl_seconds)
        )
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def close(self) -> None:
        """Wait for answers that are still being stored."""
        await asyncio.gather(*self._storing, return_exceptions=True)


# --- cache


def _entry(exchange: Exchange, parsed: ParsedRequest, candidate: Candidate) -> CacheEntry | None:
    """The place in the cache of this candidate's answer to this request; None where the cache may not serve it."""
    serving = exchange.serving
    if serving.cache is None or not serving.runtime.cache.allows(parsed):
        return None
    ttl_seconds = serving.runtime.cache.ttl_seconds(parsed.call.type, candidate.configured.cache_ttl_seconds)
    if ttl_seconds <= 0:
        return None
    digest = cache_digest(
        parsed,
        exchange.headers,
        exchange.query,
        place=candidate.configured.provider.identity,
        model=candidate.answering_model(parsed.model),
    )
    return CacheEntry(serving.cache, candidate, digest, ttl_seconds) if digest is not None else None


async def _from_cache(exchange: Exchange, parsed: ParsedRequest, entry: CacheEntry | None) -> web.Response | None:
    record = exchange.record
    if entry is None:
        record.cache = "bypass"
        return None
    found = await entry.cache.find(entry.digest)
    if found is None:
        record.cache = "miss"
        return None
    candidate = entry.candidate
    record.cache, record.status, record.usage = "hit", 200, found.usage
    record.dropped = list(found.dropped)
    record.provider, record.answered_by = candidate.name, (candidate.name, candidate.answering_model(parsed.model))
    headers = answer_headers([("Content-Type", found.content_type), ("Age", str(found.age_seconds))], record)
    return web.Response(status=200, body=found.body, headers=headers)


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
