"""What the cache does for one call: it is asked before any provider, and given the answer afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import web

from llm_sidecar.cache.answers import ASIDE_BYTES, NOTHING_FOUND, Found, Place
from llm_sidecar.cache.directives import NO_DIRECTIVES, cache_directives
from llm_sidecar.cache.entries import MAX_ENTRY_BYTES, CachedAnswer
from llm_sidecar.cache.key import cache_digest, request_digest
from llm_sidecar.cache.memory import unheard
from llm_sidecar.cache.policy import STALE_SECONDS
from llm_sidecar.cache.recording import RecordingObserver
from llm_sidecar.errors import NotCached
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.prices import cost_nano_usd
from llm_sidecar.replies import answer_headers

if TYPE_CHECKING:
    from llm_sidecar.cache.answers import AnswerCache, Epochs
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import ParsedRequest, Usage
    from llm_sidecar.record import CacheResult

_EVENTS: Final = "text/event-stream; charset=utf-8"
JSON: Final = "application/json"


class Question:
    """What a request asks, wherever it goes. Its digest is made once, when it is first wanted."""

    __slots__ = ("_digest", "_exchange", "_is_made", "_parsed", "directives", "is_known")

    def __init__(self, exchange: Exchange, parsed: ParsedRequest, known_digest: bytes | None) -> None:
        """`known_digest`: where the same one came before."""
        self._exchange = exchange
        self._parsed = parsed
        values = exchange.request.headers.getall("Cache-Control", ())
        self.directives = cache_directives(values) if values else NO_DIRECTIVES
        self.is_known = known_digest is not None
        self._is_made = self.is_known or self.directives.no_store
        self._digest = None if self.directives.no_store else known_digest

    def digest(self) -> bytes | None:
        """None where the cache must not answer."""
        if not self._is_made:
            self._is_made = True
            serving = self._exchange.serving
            if serving.cache is not None and serving.runtime.cache.allows(self._parsed):
                self._digest = request_digest(self._parsed, self._exchange.headers, self._exchange.query)
        return self._digest


class _Stale(NamedTuple):
    """An answer after its time, and who gave it."""

    candidate: Candidate
    place: Place
    answer: CachedAnswer


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
        "_looked_at",
        "_parsed",
        "_question",
        "_request",
        "_stale",
        "may_be_kept",
    )

    def __init__(
        self,
        exchange: Exchange,
        parsed: ParsedRequest,
        candidates: Sequence[Candidate],
        question: Question,
        *,
        by_items: bool = False,
    ) -> None:
        """`by_items`: what is asked is cached in pieces (`embedding_lookup.py`), so nothing of it as a whole."""
        self._exchange = exchange
        self._parsed = parsed
        self._candidates = candidates
        self._asked_at = time.time()
        self._stale: _Stale | None = None
        self._found: Found = NOTHING_FOUND
        self._looked_at = 0
        """Of so many candidates it is known whether their answer is there."""
        self._cache: AnswerCache | None = exchange.serving.cache
        self._directives = question.directives
        self._question = question
        self._request = question.digest() if not by_items and self._is_served else None
        self._first: Place | None = None
        """Of an answer by the first candidate; None where the cache may not serve it."""
        self.may_be_kept = self._request is not None
        """True where an answer may be stored, if it is complete, and its provider allows it."""
        if self._request is not None:
            self._first = self._place(candidates[0])
            exchange.keeps_answer = True

    @property
    def _is_served(self) -> bool:
        return self._cache is not None and self._ttl_seconds(self._candidates[0]) > 0

    @property
    def may_be_shared(self) -> bool:
        """True where another's answer to the same request, which is under way, will do."""
        return self._first is not None and not self._directives.want_newer

    @property
    def shared_under(self) -> Hashable:
        """Equal for those who may share an answer: a purge comes between what was asked before and after it."""
        digest = None if self._first is None else self._first.digest
        if not self._found.epochs:
            return digest, unheard(self._asked_at)
        return digest, self._found.epochs, self._found.not_before

    # --- before

    async def look_up(self, is_shut: Callable[[Candidate], bool]) -> web.Response | None:
        """The cached answer: that of the first candidate; that of the next, too, where the first `is_shut`.

        Raises `NotCached` where the application wants no other.
        """
        record, cache, first = self._exchange.record, self._cache, self._first
        record.cache = "bypass"
        reply: web.Response | None = None
        if cache is not None and first is not None:
            record.cache, record.cache_key = "miss", first.digest
            self._looked_at = count = self._count_would_not_be_asked(is_shut) + 1
            places = [first, *map(self._place, self._candidates[1:count])]
            reply = self._served(cache, places, [cache.remembered(place) for place in places])
            if reply is not None and not self._question.is_known:
                self._get_to_know(cache)
            if reply is None:
                places += map(self._place, self._candidates[count:])
                self._found = await cache.find(places, looked_at=count)
                reply = self._served(cache, places, self._found.answers)
        if reply is None:
            self.not_cached()
        return reply

    def not_cached(self) -> None:
        """Nothing that is cached will do. Raises `NotCached` where the application wants nothing else."""
        if self._directives.only_if_cached:
            raise NotCached(
                "the request says `Cache-Control: only-if-cached`, and no answer to it is cached: send it without, "
                "to have a provider asked"
            )

    def _count_would_not_be_asked(self, is_shut: Callable[[Candidate], bool]) -> int:
        """How many candidates, from the first on, are left out for now; never the last, behind whom is nobody."""
        count = 0
        for candidate in self._candidates[:-1]:
            if not is_shut(candidate):
                break
            count += 1
        return count

    def _get_to_know(self, cache: AnswerCache) -> None:
        """Who asks the same again within a moment will do so once more. What the clamp has changed is left out."""
        exchange = self._exchange
        if self._request is not None and not exchange.record.output_clamped_tokens:
            cache.known_requests.keep(self._parsed, self._request, exchange.query, exchange.headers)

    def _served(
        self, cache: AnswerCache, places: Sequence[Place], answers: Sequence[CachedAnswer | None], *, start: int = 0
    ) -> web.Response | None:
        """The first of these answers that is fresh. They are those of the candidates from `start` on."""
        for candidate, place, answer in zip(self._candidates[start:], places, answers, strict=False):
            if answer is not None:
                reply = self._fresh(cache, candidate, place, answer)
                if reply is not None:
                    return reply
        return None

    def _fresh(
        self, cache: AnswerCache, candidate: Candidate, place: Place, answer: CachedAnswer
    ) -> web.Response | None:
        configured_seconds = self._ttl_seconds(candidate)
        if self._directives.no_cache or configured_seconds <= 0:
            return None
        age_seconds = max(0.0, self._asked_at - answer.asked_at)
        ttl_seconds = min(answer.ttl_seconds, configured_seconds)
        if age_seconds < self._directives.served_for_seconds(ttl_seconds):
            return self._reply(cache, candidate, place, answer, result="hit")
        is_younger = self._stale is None or answer.asked_at >= self._stale.answer.asked_at
        if is_younger and age_seconds < ttl_seconds + min(self._directives.stale_if_error_seconds, STALE_SECONDS):
            self._stale = _Stale(candidate, place, answer)
        return None

    def _reply(
        self, cache: AnswerCache, candidate: Candidate, place: Place, answer: CachedAnswer, *, result: CacheResult
    ) -> web.Response | None:
        """None where a plain answer cannot be the stream that is asked for."""
        body, content_type = answer.body, answer.content_type
        if self._parsed.stream:
            stream = cache.stream(place, answer, self._parsed)
            if stream is None:
                return None
            body, content_type = stream, JSON if self._parsed.call.stream_is_json_array else _EVENTS
        record = self._exchange.record
        record.cache, record.cache_key, record.status, record.error_code = result, place.digest, 200, ""
        record.usage, record.usage_source = answer.usage, None
        record.cache_saved_nano_usd = cost_nano_usd(candidate.model, answer.usage) or 0
        record.dropped = list(answer.dropped)
        record.provider, record.model = candidate.name, candidate.model.name
        record.answered_by = (candidate.name, candidate.answering_model(self._parsed.model))
        headers = [("Content-Type", content_type), ("Age", str(answer.age_seconds(self._asked_at)))]
        return web.Response(status=200, body=body, headers=answer_headers(headers, record))

    async def reply_after_failure(self) -> web.Response | None:
        """Where every provider failed: what one of them, whose answers had not been looked for, once said to the same;
        or what the application would rather have than the error, if there is any.
        """
        cache, looked_at = self._cache, self._looked_at
        if cache is None or self._first is None:
            return None
        places = [self._place(candidate) for candidate in self._candidates[looked_at:]]
        if looked_at and places and not self._directives.no_cache:
            found = await cache.find(places, looked_at=len(places))
            reply = self._served(cache, places, found.answers, start=looked_at)
            if reply is not None:
                return reply
        return None if self._stale is None else self._reply(cache, *self._stale, result="stale")

    # --- afterwards

    def seen(self, candidate: Candidate) -> tuple[Place, Epochs] | None:
        """Where an answer of a candidate goes, under what was counted when it was asked for; None: nowhere."""
        if self._first is None or self._ttl_seconds(candidate) <= 0:
            return None
        for one, epochs in zip(self._candidates, self._found.epochs, strict=False):
            if one is candidate:
                return self._place(candidate), epochs
        return None

    def tell_key(self, candidate: Candidate) -> None:
        """Have the audit log name the place where a candidate's answer goes: a purge of this key reaches it."""
        if candidate is not self._candidates[0]:
            self._exchange.record.cache_key = self._place(candidate).digest

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
        answer = CachedAnswer(body, content_type or JSON, usage, self._asked_at, ttl_seconds, dropped)
        kept_seconds = self._exchange.serving.runtime.cache.kept_seconds(ttl_seconds)
        return await self._cache.keep(place, epochs, answer, kept_seconds=kept_seconds)

    def _ttl_seconds(self, candidate: Candidate) -> int:
        policy = self._exchange.serving.runtime.cache
        return policy.ttl_seconds(self._parsed.call.type, candidate.configured.cache_ttl_seconds)

    def _place(self, candidate: Candidate) -> Place:
        if self._first is not None and candidate is self._candidates[0]:
            return self._first
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
