"""The floor of this stack: the smallest honest reverse proxy of aiohttp's server and client.

It has no features, no time-outs and no limits: what the sidecar costs beyond this is what its features cost.
Set up as aiohttp's users would for speed: uvloop, no access log, whole reads passed on (`iter_any`), no decompression.
Kept plain on purpose. A tuned one (own upstream pool, prebuilt headers) is a different floor; see docs/benchmarks.md.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "te", "trailer", "upgrade"})
_UPSTREAM: Final = web.AppKey("upstream", str)
_SESSION: Final = web.AppKey("session", aiohttp.ClientSession)


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)


async def _relay(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    url = request.app[_UPSTREAM] + request.path_qs
    headers = _end_to_end(request.headers)
    async with request.app[_SESSION].request(request.method, url, headers=headers, data=body) as answer:
        response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


async def _open_session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        app[_SESSION] = session
        yield


def main(port: int, upstream_port: int) -> None:
    """Relay everything that comes to a loopback port until the process ends."""
    app = web.Application()
    app[_UPSTREAM] = f"http://127.0.0.1:{upstream_port}"
    app.cleanup_ctx.append(_open_session)
    app.router.add_route("*", "/{path:.*}", _relay)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
