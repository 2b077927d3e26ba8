"""An HTTP listener of the operator, for as long as a block runs."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

_KEEPALIVE_SECONDS: Final = 120.0
"""More than the 90 s of the API server's client: the side that sends should be the one that closes, or a review
could meet a connection that we are just closing."""


@asynccontextmanager
async def listening(
    application: web.Application, *, host: str, port: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve inside this block; it gets the port."""
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, keepalive_timeout=_KEEPALIVE_SECONDS, shutdown_timeout=5.0
    )
    await runner.setup()
    try:
        # Deployments roll out by surge: the kernel's default backlog is short when hundreds of pods come at once.
        site = web.TCPSite(runner, host, port, ssl_context=context, backlog=1024)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
