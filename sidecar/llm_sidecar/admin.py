"""`/metrics`, `/healthz` and `/readyz`, on a listener of their own. Nothing here tells keys or content."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from llm_sidecar.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from llm_sidecar.health import Health
    from llm_sidecar.metrics import Metrics


def admin_handler(metrics: Metrics, health: Health) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The listener's handler."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, headers={"allow": "GET, HEAD"})
        match request.path:
            case "/metrics":
                return web.Response(body=metrics.exposition(), headers={"content-type": CONTENT_TYPE})
            case "/healthz":
                return web.Response(text="ok\n")
            case "/readyz":
                body = orjson.dumps(health.detail(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
                return web.Response(status=200 if health.ready else 503, body=body, content_type="application/json")
            case _:
                return web.Response(status=404, text="here are /metrics, /healthz and /readyz\n")

    return answer
