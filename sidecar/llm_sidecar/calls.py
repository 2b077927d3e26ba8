"""A call to one of the APIs: read → route → authorise → cache → reserve → attempt… → relay → settle."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llm_sidecar.body import hold_parsed, read_body
from llm_sidecar.cache.answers import CachedAnswer
from llm_sidecar.cache.key import cache_digest
from llm_sidecar.errors import MalformedBody, NoProviderAvailable
from llm_sidecar.failover.attempt import (
    AttemptFailed,
    LargeAnswer,
    OpenStream,
    PlainAnswer,
    attempt_plain,
    attempt_stream,
)
from llm_sidecar.formats.base import Call, Format, MalformedRequest, ParsedRequest, Usage
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.headers import to_application
from llm_sidecar.providers.base import FailureReason, ProviderRequest
from llm_sidecar.record import Attempt, RequestRecord
from llm_sidecar.relay import StreamRelay, relay_pieces
from llm_sidecar.replies import answer_headers
from llm_sidecar.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.cache.answers import AnswerCache
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.providers.base import Timeouts

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

    def __init__(self) -> None:
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
        spending = await Spending.begin(exchange.serving.quota, record, parsed, candidates[0].model)
        try:
            return await self._ask_providers(Asked(exchange, parsed, wire, spending, entry), candidates)
        finally:
            spending.end()

    async def _ask_providers(self, asked: Asked, candidates: Sequence[Candidate]) -> web.StreamResponse:
        record = asked.record
        last_error: tuple[Candidate, PlainAnswer] | None = None
        for candidate in candidates:
            record.provider, record.model = candidate.name, candidate.model.name
            began = time.perf_counter()
            try:
                opened = await _attempt(asked, candidate)
            except AttemptFailed as failure:
                record.attempts.append(_failed(candidate, failure, began))
                last_error = (candidate, failure.answer) if failure.answer else last_error
                continue
            milliseconds = (time.perf_counter() - began) * 1000
            record.attempts.append(Attempt(candidate.name, "answered", opened.status, milliseconds))
            record.answered_by = (candidate.name, candidate.answering_model(asked.parsed.model))
            return await self._relay(asked, candidate, opened)
        asked.spending.nobody_answered()
        if last_error is None:
            raise _nobody_answered(record.attempts)
        candidate, answer = last_error
        record.provider, record.model = candidate.name, candidate.model.name
        record.answered_by = (candidate.name, candidate.answering_model(asked.parsed.model))
        return _plain_reply(answer, record)

    async def _relay(
        self, asked: Asked, candidate: Candidate, opened: PlainAnswer | LargeAnswer | OpenStream
    ) -> web.StreamResponse:
        record = asked.record
        if isinstance(opened, PlainAnswer):
            return self._relay_plain(asked, candidate, opened)
        timeouts = candidate.configured.provider.timeouts
        try:
            if isinstance(opened, LargeAnswer):
                return await _relay_large(asked, opened, timeouts)
            record.first_content = time.perf_counter()
            asked.spending.streaming(opened.observer)
            return await StreamRelay(opened, timeouts, asked.exchange.held).run(asked.exchange.request, record)
        finally:
            opened.response.close()

    def _relay_plain(self, asked: Asked, candidate: Candidate, answer: PlainAnswer) -> web.Response:
        if answer.status < 300:
            asked.spending.answered(answer.usage, answer_bytes=len(answer.body))
            self._keep(asked, candidate, answer)
        else:
            asked.spending.refused_by_provider()
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
        kept = CachedAnswer(answer.body, content_type or "application/json", answer.usage, time.time())
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
    record.provider, record.answered_by = candidate.name, (candidate.name, candidate.answering_model(parsed.model))
    headers = answer_headers([("Content-Type", found.content_type), ("Age", str(found.age_seconds))], record)
    return web.Response(status=200, body=found.body, headers=headers)


# --- providers


async def _attempt(asked: Asked, candidate: Candidate) -> PlainAnswer | LargeAnswer | OpenStream:
    configured, parsed, wire, exchange = candidate.configured, asked.parsed, asked.wire, asked.exchange
    ask_for_usage = parsed.stream and configured.asks_for_stream_usage
    try:
        splices = wire.splices(parsed, model=candidate.send_model, ask_for_usage=ask_for_usage)
    except MalformedRequest as error:  # what a plain look did not show: nested too deep to find a member's place
        asked.spending.nobody_answered()
        raise MalformedBody(str(error)) from error
    body = apply_splices(parsed.body, splices) if splices else parsed.body
    path = wire.upstream_path(parsed.call, candidate.send_model)
    request = ProviderRequest("POST", path, exchange.query, exchange.headers, body)
    if parsed.stream:
        return await attempt_stream(configured.provider, request, parsed, wire, exchange.held, hide_usage=ask_for_usage)
    return await attempt_plain(configured.provider, request, parsed, wire, exchange.held)


def _failed(candidate: Candidate, failure: AttemptFailed, began: float) -> Attempt:
    milliseconds = (time.perf_counter() - began) * 1000
    return Attempt(candidate.name, failure.reason, failure.status, milliseconds, failure.detail)


def _nobody_answered(attempts: Sequence[Attempt]) -> NoProviderAvailable:
    told = "; ".join(f"{attempt.provider}: {attempt.detail}" for attempt in attempts)
    error = NoProviderAvailable(
        f"no provider answered ({told})",
        details={"attempts": [{"provider": one.provider, "reason": one.outcome} for one in attempts]},
        retry_after_milliseconds=1000,
    )
    # A key or an address that is wrong now is still wrong in a second.
    lasting = {FailureReason.AUTHENTICATION, FailureReason.REDIRECTED}
    error.should_retry = not all(attempt.outcome in lasting for attempt in attempts)
    return error


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
