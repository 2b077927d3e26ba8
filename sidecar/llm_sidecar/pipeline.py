"""The way of a request, stage by stage.

    guard → recognise → authenticate → read → route → authorise → cache → reserve → attempt… → relay → settle → record

Each stage is a module of its own; this one only puts them in order.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llm_sidecar.audit import audit_line
from llm_sidecar.body import read_body
from llm_sidecar.cache.answers import CachedAnswer
from llm_sidecar.cache.key import cache_digest
from llm_sidecar.errors import InternalError, MalformedBody, NoProviderAvailable, SidecarError
from llm_sidecar.exchange import Exchange, Serving
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
from llm_sidecar.formats.recognise import Passthrough, recognise
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.guards import TokenGuard, check_origin, without_key
from llm_sidecar.headers import to_application, to_provider
from llm_sidecar.listing import answer_listing
from llm_sidecar.passthrough import pass_through
from llm_sidecar.providers.base import FailureReason, ProviderRequest
from llm_sidecar.record import Attempt, RequestRecord
from llm_sidecar.relay import StreamRelay, relay_pieces
from llm_sidecar.replies import answer_headers, error_reply, family_of
from llm_sidecar.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.audit import AuditLog
    from llm_sidecar.budget import BufferBudget
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.metrics import Metrics

logger = logging.getLogger(__name__)

USAGE_TAIL_BYTES: Final = 64 * 1024
"""How much of a large answer's end is kept to look for its usage: the APIs tell it after the content."""
CLIENT_CLOSED_REQUEST: Final = 499
"""In metrics and the audit line only: the application hung up before there was a status to send."""


class Pipeline:
    """Answers requests. One for the whole process."""

    def __init__(
        self, serving: Serving, *, guard: TokenGuard, budget: BufferBudget, metrics: Metrics, audit: AuditLog
    ) -> None:
        self.serving = serving
        self._guard = guard
        self._budget = budget
        self._metrics = metrics
        self._audit = audit
        # Unique over the fleet: the prefix is drawn per process. It also names the quota reservation.
        self._ids = (f"{prefix}-{number:x}" for prefix in (secrets.token_hex(8),) for number in itertools.count(1))
        self._background: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        serving = self.serving
        record = RequestRecord(next(self._ids), serving.runtime.team)
        exchange = Exchange(request, serving, record, self._budget.hold())
        try:
            return await self._answer(exchange)
        except SidecarError as error:
            return error_reply(error, exchange.family, record)
        except asyncio.CancelledError:
            record.client_gone = True
            raise
        except Exception:
            logger.exception("request %s failed by a defect of the sidecar", record.request_id)
            error = InternalError(
                f"the sidecar failed by a defect of its own; its log tells more under {record.request_id}"
            )
            return error_reply(error, exchange.family, record)
        finally:
            exchange.held.release()
            self._finish(record)

    def _finish(self, record: RequestRecord) -> None:
        if record.status == 0:
            record.status = CLIENT_CLOSED_REQUEST
        now = time.perf_counter()
        self._metrics.count(record, now)
        self._audit.write(audit_line(record, now))

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        path, _, query = request.raw_path.partition("?")
        exchange.query, query_key = without_key(query)
        recognised = recognise(request.method, path, query, request.headers)
        exchange.family = family_of(recognised)
        check_origin(request.headers)
        self._guard.check(request.headers, query_key)
        exchange.headers = to_provider(request.headers.items())
        exchange.record.sdk_retry_count = _retry_count(request)
        if isinstance(recognised, Call):
            return await self._answer_call(exchange, recognised)
        if isinstance(recognised, Passthrough):
            return await pass_through(exchange, recognised)
        return answer_listing(exchange, recognised)

    async def _answer_call(self, exchange: Exchange, call: Call) -> web.StreamResponse:
        record, runtime = exchange.record, exchange.serving.runtime
        record.api, record.type = call.api, call.type
        wire = FORMATS[call.api]
        body = await read_body(exchange.request, exchange.held)
        try:
            parsed = wire.parse_request(call, body)
        except MalformedRequest as error:
            raise MalformedBody(str(error)) from error
        record.stream = parsed.stream
        candidates = runtime.candidates(parsed)
        record.model = candidates[0].model.name
        digest = self._cache_digest(exchange, parsed, candidates[0])
        if digest is not None and (hit := await self._from_cache(exchange, digest, parsed, candidates[0])) is not None:
            return hit
        spending = await Spending.begin(exchange.serving.quota, record, parsed, candidates[0].model)
        try:
            return await self._ask_providers(exchange, parsed, wire, candidates, spending)
        finally:
            spending.end()

    # --- cache

    def _cache_digest(self, exchange: Exchange, parsed: ParsedRequest, candidate: Candidate) -> str | None:
        serving = exchange.serving
        if serving.cache is None or not serving.runtime.cache.allows(parsed):
            exchange.record.cache = "bypass"
            return None
        if serving.runtime.cache.ttl_seconds(parsed.call.type, candidate.configured.cache_ttl_seconds) <= 0:
            exchange.record.cache = "bypass"
            return None
        return cache_digest(
            parsed,
            exchange.request.headers,
            exchange.query,
            provider=candidate.name,
            model=candidate.answering_model(parsed.model),
        )

    async def _from_cache(
        self, exchange: Exchange, digest: str, parsed: ParsedRequest, candidate: Candidate
    ) -> web.Response | None:
        cache, record = exchange.serving.cache, exchange.record
        found = await cache.find(digest) if cache is not None else None
        if found is None:
            record.cache = "miss"
            return None
        record.cache, record.status, record.usage = "hit", 200, found.usage
        record.provider, record.answered_by = candidate.name, (candidate.name, candidate.answering_model(parsed.model))
        headers = answer_headers([("Content-Type", found.content_type), ("Age", str(found.age_seconds))], record)
        return web.Response(status=200, body=found.body, headers=headers)

    def _keep(self, exchange: Exchange, parsed: ParsedRequest, candidate: Candidate, answer: PlainAnswer) -> None:
        """Store an answer, under the one who gave it, without keeping the application waiting."""
        cache = exchange.serving.cache
        wire = FORMATS[parsed.call.api]
        if cache is None or answer.status != 200 or not wire.is_complete(parsed.call, answer.body):
            return
        digest = self._cache_digest(exchange, parsed, candidate)
        if digest is None:
            return
        exchange.record.cache = "miss"
        ttl_seconds = exchange.serving.runtime.cache.ttl_seconds(
            parsed.call.type, candidate.configured.cache_ttl_seconds
        )
        content_type = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
        kept = CachedAnswer(answer.body, content_type or "application/json", answer.usage, time.time())
        task = asyncio.get_running_loop().create_task(cache.keep(digest, kept, ttl_seconds=ttl_seconds))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- providers

    async def _ask_providers(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        wire: Format,
        candidates: Sequence[Candidate],
        spending: Spending,
    ) -> web.StreamResponse:
        record = exchange.record
        last_error: PlainAnswer | None = None
        for candidate in candidates:
            record.provider, record.model = candidate.name, candidate.model.name
            began = time.perf_counter()
            try:
                opened = await self._attempt(exchange, parsed, wire, candidate)
            except AttemptFailed as failure:
                record.attempts.append(_failed(candidate, failure, began))
                last_error = failure.answer or last_error
                continue
            record.attempts.append(
                Attempt(candidate.name, "answered", opened.status, (time.perf_counter() - began) * 1000)
            )
            record.answered_by = (candidate.name, candidate.answering_model(parsed.model))
            return await self._relay(exchange, parsed, wire, candidate, opened, spending)
        spending.nothing_spent()
        if last_error is not None:
            return _plain_reply(last_error, record)
        raise _nobody_answered(record.attempts)

    async def _attempt(
        self, exchange: Exchange, parsed: ParsedRequest, wire: Format, candidate: Candidate
    ) -> PlainAnswer | LargeAnswer | OpenStream:
        configured = candidate.configured
        ask_for_usage = parsed.stream and configured.asks_for_stream_usage
        splices = wire.splices(parsed, model=candidate.send_model, ask_for_usage=ask_for_usage)
        body = apply_splices(parsed.body, splices) if splices else parsed.body
        path = wire.upstream_path(parsed.call, candidate.send_model)
        request = ProviderRequest("POST", path, exchange.query, exchange.headers, body)
        if not parsed.stream:
            return await attempt_plain(configured.provider, request, parsed, wire, exchange.held)
        return await attempt_stream(
            configured.provider, request, parsed, wire, exchange.held, hide_usage=ask_for_usage
        )

    async def _relay(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        wire: Format,
        candidate: Candidate,
        opened: PlainAnswer | LargeAnswer | OpenStream,
        spending: Spending,
    ) -> web.StreamResponse:
        record = exchange.record
        if isinstance(opened, PlainAnswer):
            if opened.status < 300:
                spending.answered(opened.usage, answer_bytes=len(opened.body))
                self._keep(exchange, parsed, candidate, opened)
            else:
                spending.refused_by_provider()
            return _plain_reply(opened, record)
        timeouts = candidate.configured.provider.timeouts
        if isinstance(opened, LargeAnswer):
            return await self._relay_large(exchange, parsed, wire, opened, timeouts.idle, spending)
        record.first_content = time.perf_counter()
        spending.streaming(opened.observer)
        try:
            return await StreamRelay(opened, timeouts, exchange.held).run(exchange.request, record)
        finally:
            opened.response.close()

    async def _relay_large(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        wire: Format,
        opened: LargeAnswer,
        idle_seconds: float,
        spending: Spending,
    ) -> web.StreamResponse:
        try:
            reply, tail = await relay_pieces(
                exchange.request,
                status=opened.status,
                headers=opened.headers,
                first=opened.beginning,
                response=opened.response,
                idle_seconds=idle_seconds,
                record=exchange.record,
                tail_bytes=USAGE_TAIL_BYTES,
            )
        finally:
            opened.response.close()
        spending.answered(_usage_at_end(wire, parsed.call, tail), answer_bytes=0)
        return reply

    async def close(self) -> None:
        """Wait for answers that are still being stored."""
        await asyncio.gather(*self._background, return_exceptions=True)


def _usage_at_end(wire: Format, call: Call, tail: bytes) -> Usage | None:
    """Usage from the end of an answer that was too large to hold: all that follows it is small."""
    for name in (b'"usage"', b'"usageMetadata"'):
        start = tail.rfind(name)
        if start >= 0 and (usage := wire.usage(call, b"{" + tail[start:])) is not None:
            return usage
    return None


def _plain_reply(answer: PlainAnswer, record: RequestRecord) -> web.Response:
    record.status = answer.status
    return web.Response(
        status=answer.status, body=answer.body, headers=answer_headers(to_application(answer.headers), record)
    )


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


def _retry_count(request: web.BaseRequest) -> int:
    said = request.headers.get("x-stainless-retry-count", "0")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 4 else 0


