"""One attempt at one provider: send, and wait until it is certain whether this is the answer.

A plain answer is certain when it is there whole. A stream is certain at its first content: until then nothing has
reached the application, and another provider may still be tried.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

import orjson

from llm_sidecar.budget import Held
from llm_sidecar.formats.base import Format, FrameTooLarge, ParsedRequest, StreamError, StreamObserver, Usage
from llm_sidecar.providers.base import (
    FailureReason,
    Headers,
    Provider,
    ProviderRequest,
    ProviderResponse,
    TransportError,
    failure_reason,
)

MAX_PLAIN_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""A larger answer (thousands of embeddings) is relayed while it arrives, so that it is never held whole."""
MAX_ERROR_BYTES: Final = 256 * 1024
"""How much of an error's body is read and relayed."""
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""The largest single frame of a stream: generated images travel as base64 in one."""
MAX_UNCOMMITTED_BYTES: Final = 1024 * 1024
"""A stream that has sent this much without any content is relayed as it is."""

_JSON_OBJECT = re.compile(rb"\A\s*[{\[]")


class AttemptFailed(Exception):
    """This provider gave no answer; the next may be tried.

    `answer` is the provider's own error, where there is one that may be shown to the application.
    """

    def __init__(self, reason: FailureReason, detail: str, *, answer: PlainAnswer | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.answer = answer
        self.status = answer.status if answer else None


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """A whole answer, also where it is an error that belongs to the application."""

    status: int
    headers: Headers
    body: bytes
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class LargeAnswer:
    """The beginning of an answer that is too large to hold; the rest is in `response`, which must be closed."""

    status: int
    headers: Headers
    beginning: bytes
    response: ProviderResponse


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream whose first content is there. `beginning` is all that may be relayed so far."""

    status: int
    headers: Headers
    beginning: bytes
    response: ProviderResponse
    observer: StreamObserver
    exhausted: bool
    """The provider has already closed it."""


async def attempt_plain(
    provider: Provider, request: ProviderRequest, parsed: ParsedRequest, wire: Format, held: Held
) -> PlainAnswer | LargeAnswer:
    """Ask for a plain answer. Raises `AttemptFailed`; `Overloaded` where its bytes cannot be held."""
    try:
        async with asyncio.timeout(provider.timeouts.response):
            response = await provider.complete(request)
            try:
                answer = await _read_plain(provider, response, held)
            except BaseException:
                response.close()
                raise
    except TransportError as error:
        raise AttemptFailed(failure_reason(error), error.detail) from error
    except TimeoutError as error:
        raise AttemptFailed(FailureReason.TIMEOUT, "no answer within timeouts.responseSeconds") from error
    if isinstance(answer, LargeAnswer):
        return answer
    response.close()
    return _understood(answer, parsed, wire)


async def _read_plain(provider: Provider, response: ProviderResponse, held: Held) -> PlainAnswer | LargeAnswer:
    if response.status >= 300:
        return await _error_answer(provider, response)
    pieces: list[bytes] = []
    size_bytes = 0
    while piece := await response.read_some():
        held.take(len(piece))
        pieces.append(piece)
        size_bytes += len(piece)
        if size_bytes > MAX_PLAIN_ANSWER_BYTES:
            return LargeAnswer(response.status, list(response.headers), b"".join(pieces), response)
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return PlainAnswer(response.status, list(response.headers), body)


async def _error_answer(provider: Provider, response: ProviderResponse) -> PlainAnswer:
    """The provider's own error, if it is the application's; otherwise `AttemptFailed`."""
    body = b""
    while len(body) < MAX_ERROR_BYTES and (piece := await response.read_some()):
        body += piece
    answer = PlainAnswer(response.status, list(response.headers), body[:MAX_ERROR_BYTES])
    reason = provider.failure(response.status, body)
    if not _is_json(body) and reason not in {FailureReason.AUTHENTICATION, FailureReason.REDIRECTED}:
        # All three APIs tell errors as JSON: this one comes from something in between, and is nothing for an SDK.
        garbled = reason or FailureReason.GARBLED_ANSWER
        raise AttemptFailed(garbled, f"it answered with status {response.status} and something that is not JSON")
    if reason is None:
        return answer
    detail = f"it answered with status {response.status}"
    if reason is FailureReason.AUTHENTICATION:
        # Its body may quote a part of the key, and the application cannot do anything about it.
        raise AttemptFailed(reason, f"it refused our key or account with status {response.status}")
    if reason is FailureReason.REDIRECTED:
        raise AttemptFailed(reason, f"{detail}, a redirect, which is never followed: check baseURL")
    raise AttemptFailed(reason, detail, answer=answer)


def _understood(answer: PlainAnswer, parsed: ParsedRequest, wire: Format) -> PlainAnswer:
    """The answer with its usage. Raises `AttemptFailed` where it is not JSON at all."""
    if answer.status >= 300:
        return answer
    usage = wire.usage(parsed.call, answer.body)
    if usage is None and not _is_json(answer.body):
        raise AttemptFailed(FailureReason.GARBLED_ANSWER, "its answer is not JSON")
    return PlainAnswer(answer.status, answer.headers, answer.body, usage)


def _is_json(body: bytes) -> bool:
    if not _JSON_OBJECT.match(body):
        return False
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


async def attempt_stream(
    provider: Provider, request: ProviderRequest, parsed: ParsedRequest, wire: Format, held: Held, *, hide_usage: bool
) -> OpenStream | PlainAnswer:
    """Ask for a stream and wait for its first content. Raises `AttemptFailed`."""
    response: ProviderResponse | None = None
    try:
        async with asyncio.timeout(provider.timeouts.first_token):
            response = await provider.complete(request)
            if response.status >= 300:
                answer = await _error_answer(provider, response)
                response.close()
                return answer
            _check_stream_type(parsed, response)
            observer = wire.observe_stream(parsed, hide_usage=hide_usage, max_frame_bytes=MAX_FRAME_BYTES)
            opened = await _until_first_content(response, observer, held, provider, wire)
            if isinstance(opened, PlainAnswer):
                response.close()
            return opened
    except BaseException as error:
        if response is not None:
            response.close()
        if isinstance(error, TransportError):
            raise AttemptFailed(failure_reason(error), error.detail) from error
        if isinstance(error, TimeoutError):
            raise AttemptFailed(FailureReason.TIMEOUT, "no content within timeouts.firstTokenSeconds") from error
        raise


def _check_stream_type(parsed: ParsedRequest, response: ProviderResponse) -> None:
    content_type = (response.header("content-type") or "").partition(";")[0].strip().lower()
    expected = "application/json" if parsed.call.stream_is_json_array else "text/event-stream"
    if content_type != expected:
        raise AttemptFailed(
            FailureReason.GARBLED_ANSWER, "a stream was asked for, and its answer is not one by its content type"
        )


async def _until_first_content(
    response: ProviderResponse, observer: StreamObserver, held: Held, provider: Provider, wire: Format
) -> OpenStream | PlainAnswer:
    beginning = b""
    received_bytes = 0
    exhausted = False
    while not (observer.committed or exhausted) and received_bytes < MAX_UNCOMMITTED_BYTES:
        piece = await response.read_some()
        received_bytes += len(piece)
        held.take(len(piece))
        exhausted = not piece or response.exhausted
        try:
            beginning += observer.feed(piece)
        except FrameTooLarge as error:
            raise AttemptFailed(FailureReason.GARBLED_ANSWER, "a frame of its stream is too large") from error
        if exhausted:
            beginning += observer.finish()
        if observer.error is not None:
            return _error_instead(response, observer.error, provider, wire)
    if not observer.committed and received_bytes < MAX_UNCOMMITTED_BYTES:
        raise AttemptFailed(FailureReason.INTERRUPTED, "its stream ended before any content")
    return OpenStream(response.status, list(response.headers), beginning, response, observer, exhausted)


def _error_instead(response: ProviderResponse, error: StreamError, provider: Provider, wire: Format) -> PlainAnswer:
    """An error that a provider sent as a stream, as the plain answer that it should have been.

    Raises `AttemptFailed` where it is not the application's to mend.
    """
    body = wire.error_body(error.status, error.code, error.message, {})
    headers = [(name, value) for name, value in response.headers if name.lower() != "content-type"]
    answer = PlainAnswer(error.status, [*headers, ("Content-Type", "application/json")], body)
    reason = provider.failure(error.status, body)
    if reason is None and error.status >= 400:
        return answer
    if reason is FailureReason.AUTHENTICATION:
        raise AttemptFailed(reason, "its stream began with an error about our key or account")
    raise AttemptFailed(reason or FailureReason.INTERRUPTED, "its stream began with an error", answer=answer)
