"""One attempt at one provider: send, and wait until it is certain whether this is the answer.

A plain answer is certain when it is there whole. A stream is certain at its first content: until then nothing has
reached the application, and another provider may still be tried.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NoReturn

import orjson

from llm_sidecar.budget import Held
from llm_sidecar.failover.failures import Failure, of_answer, of_stream_error, of_transport
from llm_sidecar.formats.base import (
    Format,
    FrameTooLarge,
    FrameUnreadable,
    ParsedRequest,
    StreamError,
    StreamObserver,
    Usage,
)
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.providers.base import Headers, Provider, ProviderRequest, ProviderResponse, TransportError

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
    """This provider gave no answer.

    `answer` is the provider's own error, in its own language, where there is one that may be shown to the application.
    """

    def __init__(self, failure: Failure, *, answer: PlainAnswer | None = None) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.answer = answer


def _failed(kind: FailureKind, detail: str) -> AttemptFailed:
    return AttemptFailed(Failure(kind, detail))


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
                body = await _read_plain(provider, response, wire, held)
            except BaseException:
                response.close()
                raise
    except TransportError as error:
        raise AttemptFailed(of_transport(error)) from error
    except TimeoutError as error:
        raise _failed(FailureKind.TIMEOUT, "no answer within timeouts.responseSeconds") from error
    if len(body) > MAX_PLAIN_ANSWER_BYTES:
        return LargeAnswer(response.status, response.headers, body, response)
    response.close()
    usage = wire.usage(parsed.call, body)
    if usage is None and not _is_json(body):
        raise _failed(FailureKind.GARBLED_ANSWER, "its answer is not JSON")
    return PlainAnswer(response.status, response.headers, body, usage)


async def _read_plain(provider: Provider, response: ProviderResponse, wire: Format, held: Held) -> bytes:
    """The whole body; its beginning only, where that is larger than what is held of one answer."""
    if response.status >= 300:
        await _raise_error(provider, response, wire)
    body = await response.read_some()
    held.take(len(body))
    if response.exhausted or not body:  # as nearly all are: the whole answer came in one read
        return body
    pieces = [body]
    size_bytes = len(body)
    while size_bytes <= MAX_PLAIN_ANSWER_BYTES and (piece := await response.read_some()):
        held.take(len(piece))
        pieces.append(piece)
        size_bytes += len(piece)
    return b"".join(pieces)


async def _raise_error(provider: Provider, response: ProviderResponse, wire: Format) -> NoReturn:
    """Raise the failure that a provider's error answer is."""
    body = b""
    while len(body) < MAX_ERROR_BYTES and (piece := await response.read_some()):
        body += piece
    answer = PlainAnswer(response.status, list(response.headers), body[:MAX_ERROR_BYTES])
    failure = of_answer(
        provider, wire.api, status=answer.status, headers=answer.headers, body=answer.body, now_seconds=time.time()
    )
    # All three APIs tell errors as JSON: anything else comes from something in between, and is nothing for an SDK.
    raise AttemptFailed(failure, answer=answer if failure.may_be_shown and _is_json(answer.body) else None)


def _is_json(body: bytes) -> bool:
    if not _JSON_OBJECT.match(body):
        return False
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


async def attempt_stream(
    provider: Provider,
    request: ProviderRequest,
    parsed: ParsedRequest,
    wire: Format,
    held: Held,
    *,
    observe: Callable[[], StreamObserver],
) -> OpenStream:
    """Ask for a stream and wait for its first content. Raises `AttemptFailed`."""
    response: ProviderResponse | None = None
    try:
        async with asyncio.timeout(provider.timeouts.first_token):
            response = await provider.complete(request)
            if response.status >= 300:
                await _raise_error(provider, response, wire)
            _check_stream_type(parsed, response)
            return await _until_first_content(response, observe(), held, provider, wire, parsed=parsed)
    except BaseException as error:
        if response is not None:
            response.close()
        if isinstance(error, TransportError):
            raise AttemptFailed(of_transport(error)) from error
        if isinstance(error, TimeoutError):
            raise _failed(FailureKind.TIMEOUT, "no content within timeouts.firstTokenSeconds") from error
        raise


def _check_stream_type(parsed: ParsedRequest, response: ProviderResponse) -> None:
    content_type = (response.header("content-type") or "").partition(";")[0].strip().lower()
    expected = "application/json" if parsed.call.stream_is_json_array else "text/event-stream"
    if content_type != expected:
        raise _failed(
            FailureKind.GARBLED_ANSWER, "a stream was asked for, and its answer is not one by its content type"
        )


async def _until_first_content(
    response: ProviderResponse,
    observer: StreamObserver,
    held: Held,
    provider: Provider,
    wire: Format,
    *,
    parsed: ParsedRequest,
) -> OpenStream:
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
            if exhausted:
                beginning += observer.finish()
        except FrameTooLarge as error:
            raise _failed(FailureKind.GARBLED_ANSWER, "a frame of its stream is too large") from error
        except FrameUnreadable as error:
            raise _failed(FailureKind.GARBLED_ANSWER, str(error)) from error
        if observer.error is not None:
            raise _error_instead(response, observer.error, provider, wire, parsed)
    if not observer.committed and received_bytes < MAX_UNCOMMITTED_BYTES:
        raise _failed(FailureKind.INTERRUPTED, "its stream ended before any content")
    return OpenStream(response.status, list(response.headers), beginning, response, observer, exhausted)


def _error_instead(
    response: ProviderResponse, error: StreamError, provider: Provider, wire: Format, parsed: ParsedRequest
) -> AttemptFailed:
    """An error that a provider sent as a stream, with the plain answer that it should have been."""
    failure = of_stream_error(provider, wire.api, error)
    if error.status < 400:  # an error event without an error's status
        failure = replace(failure, kind=FailureKind.INTERRUPTED)
    body = wire.error_body(error.status, error.code, error.message, {})
    if parsed.call.stream_is_json_array:
        body = b"[%b]" % body
    headers = [(name, value) for name, value in response.headers if name.lower() != "content-type"]
    answer = PlainAnswer(error.status, [*headers, ("Content-Type", "application/json")], body)
    return AttemptFailed(failure, answer=answer if failure.may_be_shown else None)
