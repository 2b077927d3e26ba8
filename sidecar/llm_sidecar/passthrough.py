"""Paths that a provider's `passthroughPaths` open: bodies go through in both directions while they arrive, unread."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from llm_sidecar.body import ApplicationGone, pieces_of
from llm_sidecar.contract.names import RequestType
from llm_sidecar.errors import EndpointNotAllowed, NoProviderAvailable, RequestRefused
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.listing import FAMILY_APIS
from llm_sidecar.providers.base import ProviderRequest, TransportError, failure_reason
from llm_sidecar.quota.demand import Charge
from llm_sidecar.quota.ledger import LedgerEntry
from llm_sidecar.record import Attempt
from llm_sidecar.relay import relay_pieces
from llm_sidecar.spending import reserve_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from llm_sidecar.exchange import Exchange
    from llm_sidecar.formats.recognise import Passthrough
    from llm_sidecar.providers.base import Headers, Provider, ProviderResponse


NO_MODEL: Final = "-"
"""Of a path that is passed on, nobody knows which model it is about."""
NOT_MODIFIED: Final = 304
ERROR_BYTES: Final = 64 * 1024
"""How much of an error is looked at before it is passed on: whether it is about our key stands at its beginning."""


async def pass_through(exchange: Exchange, passthrough: Passthrough) -> web.StreamResponse:
    """Pass a request on to the provider that lists its path. Raises `EndpointNotAllowed`, `NoProviderAvailable`."""
    record = exchange.record
    record.type = RequestType.PASSTHROUGH
    family = FAMILY_APIS[passthrough.family]
    configured = exchange.serving.runtime.routes.passthrough(passthrough.path, family)
    if configured is None:
        raise EndpointNotAllowed(
            f"{passthrough.path[:200]} is not served here. With a key shared by teams it would open what others "
            "stored at the provider; whoever runs the LLMProvider may list it in spec.passthroughPaths"
        )
    quota = exchange.serving.quota
    reservation = await reserve_call(quota, record, model=NO_MODEL) if quota is not None else None
    try:
        return await _exchange(exchange, configured.provider, passthrough.path)
    finally:
        if quota is not None and reservation is not None:
            if record.status:
                entry = LedgerEntry(source="measured", provider=record.provider, model=NO_MODEL, status=record.status)
                quota.settle(reservation, Charge(), entry)
            else:
                quota.release(reservation)


class _Upload:
    """The application's body on its way. What fails in reading it must not be told as the provider's failure."""

    __slots__ = ("_request", "failure")

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.failure: RequestRefused | ApplicationGone | None = None

    def pieces(self) -> AsyncIterator[bytes] | None:
        """The body while it arrives; None where there is none."""
        return self._read() if self._request.body_exists and self._request.can_read_body else None

    async def _read(self) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces_of(self._request):
                yield piece
        except (RequestRefused, ApplicationGone) as failure:
            self.failure = failure
            raise


async def _exchange(exchange: Exchange, provider: Provider, path: str) -> web.StreamResponse:
    record, request = exchange.record, exchange.request
    upload = _Upload(request)
    record.provider = provider.name
    upstream = ProviderRequest(
        request.method,
        path.removeprefix(provider.client_path_prefix),
        exchange.query,
        _framed(exchange.headers, request),
        upload.pieces(),
    )
    began = time.perf_counter()
    try:
        async with asyncio.timeout(provider.timeouts.response):
            response, beginning = await _answer(provider, upstream)
    except (TransportError, TimeoutError) as error:
        if upload.failure is not None:
            raise upload.failure from error
        detail = error.detail if isinstance(error, TransportError) else "no answer within timeouts.responseSeconds"
        reason = failure_reason(error) if isinstance(error, TransportError) else FailureKind.TIMEOUT
        record.attempts.append(Attempt(provider.name, reason, None, (time.perf_counter() - began) * 1000, detail))
        raise NoProviderAvailable(f"{provider.name}: {detail}", retry_after_milliseconds=1000) from error
    record.attempts.append(Attempt(provider.name, "answered", response.status, (time.perf_counter() - began) * 1000))
    try:
        _check_answer(provider, response, beginning)
        record.answered_by = (provider.name, NO_MODEL)
        reply, _ = await relay_pieces(
            request,
            status=response.status,
            headers=response.headers,
            first=beginning,
            response=response,
            idle_seconds=provider.timeouts.response,
            record=record,
        )
    finally:
        response.close()
    return reply


async def _answer(provider: Provider, request: ProviderRequest) -> tuple[ProviderResponse, bytes]:
    """The answer's head, and of an error as much of its body as tells whose error it is."""
    response = await provider.complete(request)
    beginning = b""
    try:
        if response.status >= 400:
            while len(beginning) < ERROR_BYTES and (piece := await response.read_some()):
                beginning += piece
    except BaseException:
        response.close()
        raise
    return response, beginning


def _check_answer(provider: Provider, response: ProviderResponse, beginning: bytes) -> None:
    """Raise where an error is about our key or account: it may quote them, and is not the application's to mend."""
    if 300 <= response.status < 400 and response.status != NOT_MODIFIED:
        raise _lasting(f"{provider.name}: it answered with a redirect, which is never followed: check baseURL")
    if response.status >= 400 and provider.rejects_key(response.status, beginning):
        raise _lasting(f"{provider.name}: it refused our key or account with status {response.status}")


def _lasting(message: str) -> NoProviderAvailable:
    error = NoProviderAvailable(message)
    error.should_retry = False
    return error


def _framed(headers: Headers, request: web.BaseRequest) -> Headers:
    length = request.content_length
    return headers if length is None or not request.body_exists else [*headers, ("Content-Length", str(length))]
