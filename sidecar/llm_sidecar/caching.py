"""What the cache does for one call: it is asked before any provider, and given the answer afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from llm_sidecar.cache.answers import ASIDE_BYTES, NOTHING_FOUND, Found, Place
from llm_sidecar.cache.directives import NO_DIRECTIVES, cache_directives
from llm_sidecar.cache.entries import MAX_ENTRY_BYTES, CachedAnswer
from llm_sidecar.cache.key import cache_digest, request_digest
from llm_sidecar.cache.policy import STALE_SECONDS
from llm_sidecar.cache.recording import RecordingObserver
from llm_sidecar.errors import NotCached
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.prices import cost_nano_usd
from llm_sidecar.replies import answer_headers

if TYPE_CHECKING:
    from llm_sidecar.cache.answers import AnswerCache, Epochs
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.attempt import OpenStream, PlainAnswer
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import ParsedRequest, Usage
    from llm_sidecar.record import CacheResult

_EVENTS: Final = "text/event-stream; charset=utf-8"
_JSON: Final = "application/json"


class CacheTurn:
    """One call at the cache. Not a dataclass: every call makes one."""

    __slots__ = (
        "_asked_at",
        "_cache",
        "_candidates",
        "_directives",
        "_exchange",
        "_first",
        "_found",
        "_is_known",
        "_parsed",
        "_request",
        "_stale",
        "may_be_kept",
    )

    def __init__(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        candidates: Sequence[Candidate],
        *,
        known_digest: bytes | None = None,
    ) -> None:
        """`known_digest`: of the request, where the same one came before."""
        self._exchange = exchange
        self._parsed = parsed
        self._candidates = candidates
        self._asked_at = time.time()
        self._stale: CachedAnswer | None = None
        self._found: Found = NOTHING_FOUND
        self._cache: AnswerCache | None = exchange.serving.cache
        values = exchange.request.headers.getall("Cache-Control", ())
        self._directives = cache_directives(values) if values else NO_DIRECTIVES
        self._request: bytes | None = None
        """What is asked, wherever it goes."""
        if self._cache is not None and self._is_served:
            self._request = known_digest or request_digest(parsed, exchange.headers, exchange.query)
        self._is_known = known_digest is not None
        self._first: Place | None = None
        """Of an answer by the first candidate; None where the cache may not serve it."""
        self.may_be_kept = self._request is not None
        """True where an answer may be stored, if it is complete, and its provider allows it."""
        if self._request is not None:
            self._first = self._place(candidates[0])
            exchange.keeps_answer = True

    @property
    def _is_served(self) -> bool:
        first, policy = self._candidates[0], self._exchange.serving.runtime.cache
        return policy.allows(self._parsed) and self._ttl_seconds(first) > 0 and not self._directives.no_store

    @property
    def may_be_shared(self) -> bool:
        """True where another's answer to the same request, which is under way, will do."""
        return self._first is not None and not self._directives.no_cache and self._directives.max_age_seconds is None

    @property
    def shared_under(self) -> Hashable:
        """Equal for those who may share an answer: a purge comes between what was asked before and after it."""
        digest = None if self._first is None else self._first.digest
        return digest, self._found.epochs, self._found.not_before

    # --- before

    async def look_up(self) -> web.Response | None:
        """The cached answer. Raises `NotCached` where the application wants no other."""
        record, cache, first = self._exchange.record, self._cache, self._first
        record.cache = "bypass"
        reply: web.Response | None = None
        if cache is not None and first is not None:
            record.cache, record.cache_key = "miss", first.digest
            reply = self._served(cache, first, cache.remembered(first))
            if reply is not None and not self._is_known:
                self._get_to_know(cache)
            if reply is None:
                self._found = await cache.find([first, *map(self._place, self._candidates[1:])])
                reply = self._served(cache, first, self._found.answer)
        if reply is None and self._directives.only_if_cached:
            raise NotCached(
                "the request says `Cache-Control: only-if-cached`, and no answer to it is cached: send it without, "
                "to have a provider asked"
            )
        return reply

    def _get_to_know(self, cache: AnswerCache) -> None:
        """Who asks the same again within a moment will do so once more. What the clamp has changed is left out."""
        exchange = self._exchange
        if self._request is not None and not exchange.record.output_clamped_tokens:
            cache.known_requests.keep(self._parsed, self._request, exchange.query, exchange.headers)

    def _served(self, cache: AnswerCache, place: Place, answer: CachedAnswer | None) -> web.Response | None:
        if answer is None or self._directives.no_cache:
            return None
        age_seconds = max(0.0, self._asked_at - answer.asked_at)
        ttl_seconds = min(answer.ttl_seconds, self._ttl_seconds(self._candidates[0]))
        wanted_seconds = self._directives.max_age_seconds
        if age_seconds < ttl_seconds and (wanted_seconds is None or age_seconds < wanted_seconds):
            return self._reply(cache, place, answer, result="hit")
        if age_seconds < ttl_seconds + min(self._directives.stale_if_error_seconds, STALE_SECONDS):
            self._stale = answer
        return None

    def _reply(
        self, cache: AnswerCache, place: Place, answer: CachedAnswer, *, result: CacheResult
    ) -> web.Response | None:
        """None where a plain answer cannot be the stream that is asked for."""
        body, content_type = answer.body, answer.content_type
        if self._parsed.stream:
            stream = cache.stream(place, answer, self._parsed)
            if stream is None:
                return None
            body, content_type = stream, _JSON if self._parsed.call.stream_is_json_array else _EVENTS
        record, first = self._exchange.record, self._candidates[0]
        record.cache, record.status, record.error_code = result, 200, ""
        record.usage, record.usage_source = answer.usage, None
        record.cache_saved_nano_usd = cost_nano_usd(first.model, answer.usage) or 0
        record.dropped = list(answer.dropped)
        record.provider, record.model = first.name, first.model.name
        record.answered_by = (first.name, first.answering_model(self._parsed.model))
        headers = [("Content-Type", content_type), ("Age", str(answer.age_seconds(self._asked_at)))]
        return web.Response(status=200, body=body, headers=answer_headers(headers, record))

    def stale_reply(self) -> web.Response | None:
        """Where every provider failed: what the application would rather have than the error, if there is any."""
        if self._stale is None or self._cache is None or self._first is None:
            return None
        return self._reply(self._cache, self._first, self._stale, result="stale")

    # --- afterwards

    def seen(self, candidate: Candidate) -> tuple[Place, Epochs] | None:
        """Where an answer of a candidate goes, under what was counted when it was asked for; None: nowhere."""
        if self._first is None or self._ttl_seconds(candidate) <= 0:
            return None
        for one, epochs in zip(self._candidates, self._found.epochs, strict=False):
            if one is candidate:
                return self._place(candidate), epochs
        return None

    async def keep(
        self, candidate: Candidate, content_type: str, made: bytes | RecordingObserver, usage: Usage | None
    ) -> bool:
        """Store a plain answer, or the one that a stream was, if it is complete; True if it is stored now."""
        seen = self.seen(candidate)
        if self._cache is None or seen is None:
            return False
        body = await _plain(made)
        if body is None or len(body) > MAX_ENTRY_BYTES:
            return False
        wire, call = FORMATS[self._parsed.call.api], self._parsed.call
        if not wire.is_complete(call, body):
            return False
        place, epochs = seen
        ttl_seconds = self._ttl_seconds(candidate)
        dropped = tuple(self._exchange.record.dropped)
        answer = CachedAnswer(body, content_type or _JSON, usage, self._asked_at, ttl_seconds, dropped)
        kept_seconds = self._exchange.serving.runtime.cache.kept_seconds(ttl_seconds)
        return await self._cache.keep(place, epochs, answer, kept_seconds=kept_seconds)

    def _ttl_seconds(self, candidate: Candidate) -> int:
        policy = self._exchange.serving.runtime.cache
        return policy.ttl_seconds(self._parsed.call.type, candidate.configured.cache_ttl_seconds)

    def _place(self, candidate: Candidate) -> Place:
        configured, model = candidate.configured, candidate.answering_model(self._parsed.model)
        digest = cache_digest(self._request or b"", place=configured.provider.identity, api=candidate.api, model=model)
        return Place(digest, configured.identity, model)


async def _plain(made: bytes | RecordingObserver) -> bytes | None:
    """The plain answer. Of a long stream, a thread makes it: it would keep other requests waiting."""
    if isinstance(made, bytes):
        return made
    if made.size_bytes < ASIDE_BYTES:
        return made.plain_answer()
    return await asyncio.to_thread(made.plain_answer)


class Keeping:
    """Stores answers without keeping their applications waiting."""

    def __init__(self) -> None:
        self._storing: set[asyncio.Task[bool]] = set()

    def plain(self, turn: CacheTurn, candidate: Candidate, answer: PlainAnswer) -> asyncio.Task[bool] | None:
        """Store a plain answer, under the one who gave it; None where it may not be."""
        if not turn.may_be_kept or answer.status != 200 or turn.seen(candidate) is None:
            return None
        content_type = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
        return self._start(turn, candidate, content_type, answer.body, answer.usage)

    def stream(self, turn: CacheTurn, candidate: Candidate, opened: OpenStream) -> asyncio.Task[bool] | None:
        """Store the plain answer that a stream was, once it has ended; None where it may not be."""
        observer = opened.observer
        if opened.status != 200 or not isinstance(observer, RecordingObserver) or not observer.is_whole:
            return None
        return self._start(turn, candidate, _JSON, observer, observer.usage)

    def _start(
        self,
        turn: CacheTurn,
        candidate: Candidate,
        content_type: str,
        made: bytes | RecordingObserver,
        usage: Usage | None,
    ) -> asyncio.Task[bool]:
        return self.start(turn.keep(candidate, content_type, made, usage))

    def start(self, storing: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        """Let something be stored."""
        task = asyncio.get_running_loop().create_task(storing)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return task

    async def close(self) -> None:
        """Wait for answers that are still being stored."""
        await asyncio.gather(*self._storing, return_exceptions=True)
