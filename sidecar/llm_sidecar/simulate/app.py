"""The simulator's HTTP side: which API is meant, who may call it, what shall fail, and who answers."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from llm_sidecar.simulate.answer import Stamp
from llm_sidecar.simulate.delivery import (
    JSON_TYPE,
    Exchange,
    PlainReply,
    StreamReply,
    send_garbage,
    send_plain,
    send_stream,
)
from llm_sidecar.simulate.dispatch import Call, Dispatcher, Reply
from llm_sidecar.simulate.errors import (
    ErrorAnswer,
    Family,
    Refusal,
    failure,
    invalid_request,
    no_such_path,
    too_large,
    wrong_key,
    wrong_method,
)
from llm_sidecar.simulate.faults import FAULT_HEADER, FAULT_PATH, Faults, FaultSchedule, FaultSpecError, parse_faults
from llm_sidecar.simulate.headers import answer_headers, given_key
from llm_sidecar.simulate.ledger import Entry, Ledger, Outcome
from llm_sidecar.simulate.routes import Endpoint, Route, match

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm_sidecar.simulate.settings import SimulatorSettings

_SHUTDOWN_SECONDS: Final = 2.0


def create_application(settings: SimulatorSettings) -> web.Application:
    """Return the simulator as an application; raises `FaultSpecError` where the settings' faults cannot be read."""
    simulator = Simulator(settings)
    application = web.Application(client_max_size=settings.maximum_body_bytes)
    application.router.add_get("/_simulate/healthz", simulator.tell_health)
    application.router.add_get("/_simulate/requests", simulator.tell_requests)
    application.router.add_delete("/_simulate/requests", simulator.reset)
    application.router.add_route("*", "/{path:.*}", simulator.handle)
    application.on_shutdown.append(simulator.close)
    return application


@dataclass(frozen=True, slots=True)
class SimulatorHandle:
    """A running simulator."""

    host: str
    port: int

    @property
    def base_url(self) -> str:
        """Without a path: what Anthropic's and Google's SDKs take; OpenAI's takes it with `/v1`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@asynccontextmanager
async def running(settings: SimulatorSettings) -> AsyncIterator[SimulatorHandle]:
    """Run a simulator for as long as the context lasts."""
    # Without cancellation a stalled or slow answer would not notice that its client has gone.
    runner = web.AppRunner(
        create_application(settings),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        address = runner.addresses[0]
        yield SimulatorHandle(host=settings.host, port=address[1])
    finally:
        await runner.cleanup()


class Simulator:
    """Answers every request; holds what outlives one: counters, the ledger, stored responses."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._faults = parse_faults(settings.faults)
        self._keys = {family: settings.keys_of(family) for family in Family}
        self._schedule = FaultSchedule()
        self._ledger = Ledger(settings.ledger_size)
        self._dispatcher = Dispatcher(settings.models)
        self._closing = asyncio.Event()
        self._number = 0

    async def tell_health(self, _request: web.Request) -> web.Response:
        """Say that the simulator is up."""
        return web.json_response({"status": "ok"})

    async def tell_requests(self, _request: web.Request) -> web.Response:
        """Tell the ledger."""
        return _json([entry.as_json() for entry in self._ledger.entries()])

    async def reset(self, _request: web.Request) -> web.Response:
        """Forget the ledger, and begin `fail_times` and `fail_percent` anew."""
        self._ledger.reset()
        self._schedule.reset()
        return web.Response(status=204)

    async def close(self, _application: web.Application) -> None:
        """Let go of stalled answers."""
        self._closing.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request of any API, and write down how it ended."""
        self._number += 1
        entry = Entry(
            number=self._number,
            method=request.method,
            path=request.path,
            header_names=[name.lower() for name in request.headers],
            retry_count=request.headers.get("x-stainless-retry-count"),
            client_request_id=request.headers.get("x-client-request-id"),
        )
        self._ledger.open(entry)
        try:
            return await self._answer(request, entry)
        except FaultSpecError as error:
            return self._refuse_fault(request, entry, error)
        except (ConnectionError, asyncio.CancelledError):
            entry.outcome = Outcome.CLIENT_GONE
            raise

    def _refuse_fault(self, request: web.Request, entry: Entry, error: FaultSpecError) -> web.Response:
        path, _ = _split_path(request.path)
        route = match(path, request.headers, has_query_key="key" in request.query)
        headers = answer_headers(route.family, self._stamp(entry), latency_ms=0)
        exchange = Exchange(request=request, headers=headers, faults=Faults(), entry=entry, closing=self._closing)
        return _refuse(exchange, route, invalid_request(route.family, str(error)).answer)

    def _stamp(self, entry: Entry) -> Stamp:
        return Stamp(entry.number, int(time.time()), self._settings.seed)

    async def _answer(self, request: web.Request, entry: Entry) -> web.StreamResponse:
        path, specification = _split_path(request.path)
        faults = parse_faults(specification, base=self._faults)
        faults = self._schedule.decide(parse_faults(request.headers.get(FAULT_HEADER, ""), base=faults))
        route = match(path, request.headers, has_query_key="key" in request.query)
        entry.api = route.endpoint
        stamp = self._stamp(entry)
        headers = answer_headers(route.family, stamp, latency_ms=faults.latency_ms)
        exchange = Exchange(request=request, headers=headers, faults=faults, entry=entry, closing=self._closing)
        reply: Reply | None = None
        try:
            raw = await self._read(request, route)
            refused = failure(route.family, faults)
            if refused is None and faults.redirect is None:
                self._let_in(request, route)
                call = Call(request=request, route=route, faults=faults, stamp=stamp, raw=raw, entry=entry)
                reply = self._dispatcher.answer(call) if faults.garbage is None else None
        except Refusal as refusal:
            refused = refusal.answer
        if isinstance(reply, PlainReply):
            # A provider charges for a plain answer also where nobody waited for it.
            entry.usage_true = reply.usage_true
        if faults.latency_ms:
            await asyncio.sleep(faults.latency_ms / 1000)
        if refused is not None:
            return _refuse(exchange, route, refused)
        if faults.redirect is not None:
            return _redirect(exchange, faults.redirect)
        if reply is None:
            return await send_garbage(exchange)
        return await (send_stream(exchange, reply) if isinstance(reply, StreamReply) else send_plain(exchange, reply))

    async def _read(self, request: web.Request, route: Route) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Refusal(too_large(route.family)) from None

    def _let_in(self, request: web.Request, route: Route) -> None:
        keys = self._keys[route.family]
        if keys:
            key = given_key(route.family, request.headers, request.query)
            if key not in keys:
                raise wrong_key(route.family, is_missing=not key)
        if route.endpoint is None:
            raise Refusal(no_such_path(route.family, request.method, request.path))
        if request.method not in route.methods:
            raise Refusal(wrong_method(route.family, request.method, request.path))


def _split_path(path: str) -> tuple[str, str]:
    """Separate `/fault/SPEC` from the path that the provider would see."""
    if not path.startswith(FAULT_PATH):
        return path, ""
    specification, _, rest = path.removeprefix(FAULT_PATH).partition("/")
    return "/" + rest, specification


def _redirect(exchange: Exchange, status: int) -> web.Response:
    exchange.entry.status, exchange.entry.outcome = status, Outcome.BROKEN_ON_PURPOSE
    return web.Response(status=status, headers={**exchange.headers, "location": "/_simulate/redirected"})


def _refuse(exchange: Exchange, route: Route, error: ErrorAnswer) -> web.Response:
    exchange.entry.status, exchange.entry.outcome = error.status, Outcome.FINISHED
    body: Any = error.body
    if route.family is Family.ANTHROPIC:
        body = {**body, "request_id": exchange.headers["request-id"]}
    if route.endpoint is Endpoint.STREAM_GENERATE and exchange.request.query.get("alt") != "sse":
        body = [body]
    return _json(body, status=error.status, headers={**exchange.headers, **error.headers})


def _json(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type=JSON_TYPE)
