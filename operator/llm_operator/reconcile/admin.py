"""`/healthz`, `/readyz` and `/metrics` of the controller, over plain HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from llm_operator.reconcile.metrics import ControllerMetrics


@asynccontextmanager
async def serve_admin(
    metrics: ControllerMetrics, *, is_alive: Callable[[], bool], is_ready: Callable[[], bool], host: str, port: int
) -> AsyncIterator[int]:
    """Serve inside this block; it gets the port."""

    async def healthz(_request: web.Request) -> web.Response:
        return _said(yes=is_alive())

    async def readyz(_request: web.Request) -> web.Response:
        return _said(yes=is_ready())

    async def exposition(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", exposition)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _said(*, yes: bool) -> web.Response:
    return web.Response(text="ok\n") if yes else web.Response(status=503, text="not yet\n")
