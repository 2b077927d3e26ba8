"""The webhook's HTTPS listener, for the API server.

A server of our own instead of kopf's: it takes reviews of more than a megabyte, changes its certificate without
closing the listener, and answers every request, also the one that nobody foresaw.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from aiohttp import web

from llm_operator.admission import Admission, Reply, refusal
from llm_operator.listener import listening

MOST_BODY_BYTES: Final = 8 * 1024 * 1024
"""The API server takes objects of up to 3 MiB; escaping and the fields around make a review larger."""
_LARGE_BODY_BYTES: Final = 1024 * 1024
_LARGE_BODIES_AT_ONCE: Final = 4
"""Whoever reaches the port may send as much as fits; so much of it is in memory at a time."""
_READ_SECONDS: Final = 10.0
"""Twice what the API server waits for the whole call."""

_log: Final = logging.getLogger(__name__)


@asynccontextmanager
async def serve_admission(admission: Admission, *, context: ssl.SSLContext, host: str, port: int) -> AsyncIterator[int]:
    """Serve reviews inside this block; it gets the port."""
    large = asyncio.Semaphore(_LARGE_BODIES_AT_ONCE)

    async def answer(request: web.Request) -> web.Response:
        try:
            lane = large if _is_large(request) else nullcontext()
            async with lane:
                reply = await _reply(admission, request)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the API server gets an answer, whatever happens
            _log.error("a request was not answered: %s", type(error).__name__)  # never its text: it may quote a pod
            reply = refusal(500, "llm-sidecar's webhook failed before it could read the review: see its log")
        return web.Response(status=reply.status, body=reply.body, content_type="application/json")

    application = web.Application(client_max_size=MOST_BODY_BYTES)
    application.router.add_route("*", "/{path:.*}", answer)
    async with listening(application, host=host, port=port, context=context) as bound:
        yield bound


async def _reply(admission: Admission, request: web.Request) -> Reply:
    if request.method != "POST":
        return refusal(405, "llm-sidecar's webhook takes AdmissionReviews, by POST")
    try:
        async with asyncio.timeout(_READ_SECONDS):
            body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        megabytes = MOST_BODY_BYTES // 1024 // 1024
        return refusal(413, f"this AdmissionReview has more than the {megabytes} MiB that llm-sidecar's webhook reads")
    except TimeoutError:
        return refusal(408, "this AdmissionReview did not arrive in time")
    return admission.answer(request.path, body)


def _is_large(request: web.Request) -> bool:
    return request.content_length is None or request.content_length > _LARGE_BODY_BYTES
