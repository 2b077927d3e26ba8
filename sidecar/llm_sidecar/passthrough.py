"""Paths that a provider's `passthroughPaths` open: bodies go through in both directions while they arrive, unread."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llm_sidecar.body import ApplicationGone, pieces_of
from llm_sidecar.contract.names import RequestType
from llm_sidecar.errors import EndpointNotAllowed, NoProviderAvailable, RequestRefused
from llm_sidecar.listing import FAMILY_APIS
from llm_sidecar.providers.base import FailureReason, ProviderRequest, TransportError
from llm_sidecar.record import Attempt
from llm_sidecar.relay import relay_pieces
from llm_sidecar.spending import reserve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from llm_sidecar.exchange import Exchange
    from llm_sidecar.formats.recognise import Passthrough
    from llm_sidecar.providers.base import Headers, Provider, ProviderResponse


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
    reservation = await reserve(quota, record, input_tokens=0, output_tokens=0) if quota is not None else None
    try:
        return await _exchange(exchange, configured.provider, passthrough.path)
    finally:
        if quota is not None and reservation is not None:
            if record.status:
                quota.settle(reservation, total_tokens=0, source="measured")
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
            response = await provider.complete(upstream)
    except (TransportError, TimeoutError) as error:
        if upload.failure is not None:
            raise upload.failure from error
        detail = error.detail if isinstance(error, TransportError) else "no answer within timeouts.responseSeconds"
        reason = FailureReason.TIMEOUT if isinstance(error, TimeoutError) else FailureReason.CONNECTION
        record.attempts.append(Attempt(provider.name, reason, None, (time.perf_counter() - began) * 1000, detail))
        raise NoProviderAvailable(f"{provider.name}: {detail}", retry_after_milliseconds=1000) from error
    try:
        milliseconds = (time.perf_counter() - began) * 1000
        record.attempts.append(Attempt(provider.name, "answered", response.status, milliseconds))
        _refuse_what_is_ours(provider, response)
        record.answered_by = (provider.name, "-")
        reply, _ = await relay_pieces(
            request,
            status=response.status,
            headers=list(response.headers),
            first=b"",
            response=response,
            idle_seconds=provider.timeouts.response,
            record=record,
        )
    finally:
        response.close()
    return reply


def _refuse_what_is_ours(provider: Provider, response: ProviderResponse) -> None:
    if response.status == 401:  # may quote a part of our key, and is not the application's to mend
        raise NoProviderAvailable(f"{provider.name}: it refused our key with status 401")
    if 300 <= response.status < 400 and response.status != 304:
        raise NoProviderAvailable(f"{provider.name}: it answered with a redirect, which is never followed")


def _framed(headers: Headers, request: web.BaseRequest) -> Headers:
    length = request.content_length
    return headers if length is None or not request.body_exists else [*headers, ("Content-Length", str(length))]
