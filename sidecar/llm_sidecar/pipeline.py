"""The way of a request, stage by stage.

    recognise → guard → authenticate → (call | pass through | list) → record

What a call goes through in turn stands in `calls.py`. Each stage is a module of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from http import HTTPMethod
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llm_sidecar.audit import audit_line
from llm_sidecar.body import ApplicationGone
from llm_sidecar.calls import Calls
from llm_sidecar.errors import (
    InternalError,
    MalformedHTTP,
    MethodNotAllowed,
    SidecarError,
    TeamNotAllowed,
    UnknownRequest,
)
from llm_sidecar.exchange import Exchange, Serving
from llm_sidecar.explain import EXPLAIN_PATH, KEPT_REQUESTS, Explanations
from llm_sidecar.failover.retry_budget import sdk_retry_count
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.recognise import Family, Passthrough, recognise
from llm_sidecar.guards import TokenGuard, check_origin, without_key
from llm_sidecar.headers import to_provider
from llm_sidecar.listing import answer_listing
from llm_sidecar.passthrough import pass_through
from llm_sidecar.record import RequestRecord
from llm_sidecar.relay import send_whole
from llm_sidecar.replies import error_reply, family_of

if TYPE_CHECKING:
    from llm_sidecar.audit import AuditLog
    from llm_sidecar.budget import BufferBudget
    from llm_sidecar.known_providers import Providers
    from llm_sidecar.metrics import Metrics

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST: Final = 499
"""In metrics and the audit line only: the application hung up before there was a status to send."""
SMALL_BYTES: Final = 64 * 1024
"""A whole answer up to this size is given to aiohttp to write, which costs least.

Nothing waits for it then, nor is it counted as held; neither is needed: it fits into the buffers of the socket, and a
connection whose application reads nothing has at most one such answer more, because the next request on it is not
begun before. Larger ones are written, and only then released, by `handle`.
"""


class Pipeline:
    """Answers requests. One for the whole process."""

    def __init__(
        self,
        serving: Serving,
        *,
        guard: TokenGuard,
        budget: BufferBudget,
        metrics: Metrics,
        audit: AuditLog,
        providers: Providers,
    ) -> None:
        self.serving = serving
        self._guard = guard
        self._budget = budget
        self._metrics = metrics
        self._audit = audit
        # Unique over the fleet: the prefix is drawn per process. It also names the quota reservation.
        self._ids = (f"{prefix}-{number:x}" for prefix in (secrets.token_hex(8),) for number in itertools.count(1))
        self._calls = Calls(providers)
        self._explanations = Explanations()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        serving = self.serving
        record = RequestRecord(next(self._ids), serving.runtime.team)
        exchange = Exchange(request, serving, record, self._budget.hold())
        try:
            reply = await self._answer(exchange)
            if isinstance(reply, web.Response):
                body = reply.body
                if isinstance(body, bytes) and len(body) > SMALL_BYTES and request.method != HTTPMethod.HEAD:
                    if record.cache in {"hit", "stale"}:
                        exchange.held.take(len(body))  # a provider's answer was counted while it was read
                    await send_whole(request, reply, body, record)
            return reply
        except SidecarError as error:
            return error_reply(error, exchange.family, record, in_array=exchange.errors_in_array)
        except ApplicationGone:
            record.client_gone = True
            return web.Response(status=CLIENT_CLOSED_REQUEST)  # nobody reads it
        except asyncio.CancelledError:
            record.client_gone = True
            raise
        except Exception:
            logger.exception("request %s failed by a defect of the sidecar", record.request_id)
            defect = InternalError(
                f"the sidecar failed by a defect of its own; its log tells more under {record.request_id}"
            )
            return error_reply(defect, exchange.family, record, in_array=exchange.errors_in_array)
        finally:
            exchange.held.release()
            # Whoever asks for explanations must not push out what they are asked for.
            self._finish(record, explains=request.raw_path.startswith(EXPLAIN_PATH))

    def refuse_malformed(self) -> web.Response:
        """Answer what is not HTTP at all. Nothing of it is repeated: it may hold a key."""
        record = RequestRecord(next(self._ids), self.serving.runtime.team)
        error = MalformedHTTP("the request is not valid HTTP/1.1: check the client's headers and framing")
        reply = error_reply(error, Family.OPENAI, record)
        reply.force_close()
        self._finish(record)
        return reply

    def _finish(self, record: RequestRecord, *, explains: bool = False) -> None:
        if record.status == 0:
            record.status = CLIENT_CLOSED_REQUEST
        now = time.perf_counter()
        self._metrics.count(record, now)
        line = audit_line(record, now)
        self._audit.write(line)
        if not explains:
            self._explanations.keep(record.request_id, line)

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        path, _, query = request.raw_path.partition("?")
        exchange.query, query_key = without_key(query)
        if path.startswith(EXPLAIN_PATH):
            check_origin(request.headers)
            self._guard.check(request.headers, query_key)
            return self._explain(exchange, path.removeprefix(EXPLAIN_PATH))
        recognised = recognise(request.method, path, query, request.headers)
        exchange.family = family_of(recognised)
        exchange.errors_in_array = isinstance(recognised, Call) and recognised.stream_is_json_array
        check_origin(request.headers)
        self._guard.check(request.headers, query_key)
        runtime = exchange.serving.runtime
        if not runtime.team_is_allowed:
            raise TeamNotAllowed(
                f"team {runtime.team} does not admit pods of this namespace any more: ask its owner, who says so in "
                "spec.allowedNamespaces of the TeamQuota"
            )
        exchange.headers = to_provider(request.headers.items())
        exchange.record.sdk_retry_count = sdk_retry_count(request.headers)
        if isinstance(recognised, Call):
            return await self._calls.answer(exchange, recognised)
        if isinstance(recognised, Passthrough):
            return await pass_through(exchange, recognised)
        return answer_listing(exchange, recognised)

    def _explain(self, exchange: Exchange, request_id: str) -> web.Response:
        if exchange.request.method not in {HTTPMethod.GET, HTTPMethod.HEAD}:
            raise MethodNotAllowed("this path takes GET only", allowed="GET")
        line = self._explanations.find(request_id)
        if line is None:
            raise UnknownRequest(
                "no request of this id is remembered: it is still under way, older than the last "
                f"{KEPT_REQUESTS}, or was answered by another pod's proxy. Take the id from x-llm-sidecar-request-id"
            )
        exchange.record.status = 200
        return web.Response(body=line, content_type="application/json")

    async def close(self) -> None:
        """Wait for what requests have left to do."""
        await self._calls.close()
