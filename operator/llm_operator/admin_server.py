"""`/healthz`, `/readyz` and `/metrics` of controller and webhook, over plain HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from llm_operator.listener import listening


@asynccontextmanager
async def serve_admin(
    exposition: Callable[[], bytes], readiness: Callable[[], Mapping[str, bool]], *, host: str, port: int
) -> AsyncIterator[int]:
    """Serve inside this block; it gets the port. The process is ready when every part of it is."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        parts = readiness()
        body = json.dumps(parts, indent=2) + "\n"
        return web.Response(status=200 if all(parts.values()) else 503, text=body, content_type="application/json")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)
    async with listening(application, host=host, port=port) as bound:
        yield bound
