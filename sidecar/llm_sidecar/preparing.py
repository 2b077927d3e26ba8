"""A request made ready for one candidate: as it came, or in that provider's language; and its answer brought back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from llm_sidecar.cache.recording import RecordingObserver
from llm_sidecar.contract.team_quota_resource import PromptCaching
from llm_sidecar.errors import MalformedBody
from llm_sidecar.failover.attempt import (
    MAX_FRAME_BYTES,
    AttemptFailed,
    LargeAnswer,
    OpenStream,
    PlainAnswer,
    attempt_plain,
    attempt_stream,
)
from llm_sidecar.failover.failures import Failure
from llm_sidecar.formats.base import MalformedRequest, ParsedRequest, Splice
from llm_sidecar.formats.json_body import apply_splices
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.optimization.prompt_caching import cache_marks, number_of_marks
from llm_sidecar.providers.base import ProviderRequest
from llm_sidecar.translated_call import Translations, holds_foreign_marks
from llm_sidecar.translation.losses import Undecodable, Untranslatable

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from llm_sidecar.budget import Held
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import Format, StreamObserver
    from llm_sidecar.providers.base import Provider
    from llm_sidecar.translated_call import TranslatedCall

_HINT_HEADERS: Final = frozenset({"retry-after", "retry-after-ms"})
_JSON: Final = ("Content-Type", "application/json")
Answer = PlainAnswer | LargeAnswer | OpenStream


class Prepared:
    """A request, ready to be sent to one candidate. Not a dataclass: every request makes one."""

    __slots__ = ("_hides_usage", "_recorded_in", "_request", "cache_marks", "parsed", "translated", "wire")

    def __init__(
        self,
        request: ProviderRequest,
        parsed: ParsedRequest,
        wire: Format,
        *,
        hides_usage: bool = False,
        translated: TranslatedCall | None = None,
        cache_marks: int = 0,
        recorded_in: Held | None = None,
    ) -> None:
        """`recorded_in`: what counts the bytes of a stream that is kept for the cache."""
        self._recorded_in = recorded_in
        self._request = request
        self.parsed = parsed
        self.wire = wire
        self._hides_usage = hides_usage
        self.translated = translated
        self.cache_marks = cache_marks
        """How many places of the prompt were marked for the provider's own cache."""

    def attempt(self, provider: Provider, held: Held) -> Coroutine[Any, Any, Answer]:
        """Send it, and wait until it is certain whether this is the answer. Raises `AttemptFailed`."""
        # Not `async`: each coroutine around another one costs at every wait.
        parsed = self.parsed
        attempt: Coroutine[Any, Any, Answer]
        if parsed.stream:
            attempt = attempt_stream(provider, self._request, parsed, self.wire, held, observe=self._observe)
        else:
            attempt = attempt_plain(provider, self._request, parsed, self.wire, held)
        return attempt if self.translated is None else self._bring_back(attempt, self.translated)

    async def _bring_back(self, attempt: Coroutine[Any, Any, Answer], translated: TranslatedCall) -> Answer:
        answer = await attempt
        if isinstance(answer, OpenStream):
            return replace(answer, headers=translated.stream_headers)
        return _brought_back(answer, translated)

    def _observe(self) -> StreamObserver:
        if self._recorded_in is None:
            return self._observer()
        bring_back = self._brought_back if self.translated is not None else None
        return RecordingObserver(self._observer(), self._recorded_in, call=self.parsed.call, bring_back=bring_back)

    def _observer(self) -> StreamObserver:
        if self.translated is not None:
            return self.translated.observe(max_frame_bytes=MAX_FRAME_BYTES)
        return self.wire.observe_stream(self.parsed, hide_usage=self._hides_usage, max_frame_bytes=MAX_FRAME_BYTES)

    def _brought_back(self, answer: bytes) -> bytes | None:
        try:
            return None if self.translated is None else self.translated.answer(answer)
        except (Undecodable, Untranslatable):
            return None


class Preparing:
    """Makes one request ready for its candidates. It is decoded once, however many of other languages there are."""

    __slots__ = ("_exchange", "_holds_marks", "_marks_prefixes", "_parsed", "_translations", "_wire")

    def __init__(self, exchange: Exchange, parsed: ParsedRequest, wire: Format) -> None:
        self._exchange = exchange
        self._parsed = parsed
        self._wire = wire
        self._holds_marks = holds_foreign_marks(parsed)
        self._marks_prefixes = exchange.serving.runtime.optimization.prompt_caching is PromptCaching.AUTO
        self._translations: Translations | None = None

    def for_candidate(self, candidate: Candidate) -> Prepared:
        """The request as this candidate takes it. Raises `Untranslatable`, `MalformedBody`."""
        is_native = candidate.api is self._parsed.call.api
        if is_native and not self._holds_marks:
            return self._as_it_is(candidate, self._parsed)
        if self._translations is None:
            self._translations = Translations(self._parsed)
        translated = self._translations.to(candidate.api, model=candidate.answering_model(self._parsed.model))
        if is_native:  # without what other providers gave the application to keep for them
            return self._as_it_is(candidate, translated.parsed)
        parsed, encoded = translated.parsed, translated.encoded
        marks = self._marks(candidate, parsed) if self._marks_prefixes else []
        body = apply_splices(parsed.body, marks)
        request = ProviderRequest("POST", encoded.path, encoded.query, translated.headers, body)
        return Prepared(
            request,
            parsed,
            translated.wire,
            translated=translated,
            cache_marks=number_of_marks(marks),
            recorded_in=self._exchange.held if self._exchange.keeps_answer else None,
        )

    def _marks(self, candidate: Candidate, parsed: ParsedRequest) -> list[Splice]:
        """For the provider's own cache, in its language."""
        return cache_marks(parsed, model=candidate.answering_model(self._parsed.model))

    def _as_it_is(self, candidate: Candidate, parsed: ParsedRequest) -> Prepared:
        exchange, wire, send_model = self._exchange, self._wire, candidate.send_model
        asks_for_usage = parsed.stream and candidate.configured.asks_for_stream_usage
        marks = self._marks(candidate, parsed) if self._marks_prefixes else []
        splices = list(marks)
        if asks_for_usage or send_model is not None:
            try:
                splices += wire.splices(parsed, model=send_model, ask_for_usage=asks_for_usage)
            except MalformedRequest as error:  # a plain look did not show it: too deep to find a member's place
                raise MalformedBody(str(error)) from error
        body = apply_splices(parsed.body, sorted(splices, key=lambda splice: splice.start)) if splices else parsed.body
        path = wire.upstream_path(parsed.call, send_model)
        request = ProviderRequest("POST", path, exchange.query, exchange.headers, body)
        return Prepared(
            request,
            parsed,
            wire,
            hides_usage=asks_for_usage,
            cache_marks=number_of_marks(marks) if marks else 0,
            recorded_in=exchange.held if exchange.keeps_answer else None,
        )

    def shown(self, prepared: Prepared, failure: Failure, answer: PlainAnswer) -> PlainAnswer:
        """The provider's error in the application's own language."""
        if prepared.translated is None:
            return answer
        hints = [(name, value) for name, value in answer.headers if name.lower() in _HINT_HEADERS]
        message = failure.message or f"the provider refused the request with status {answer.status}"
        body = self._wire.error_body(answer.status, failure.code or failure.kind, message, {})
        if self._parsed.call.stream_is_json_array:
            body = b"[%b]" % body
        return PlainAnswer(answer.status, [*hints, _JSON], body)


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
    return PlainAnswer(answer.status, [_JSON], body, answer.usage)
