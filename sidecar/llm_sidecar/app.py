"""The process: two listeners, the shared store, the configuration in use; started and ended in order.

The proxy listens on loopback only. The admin listener (metrics, health) never answers anything about content.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from llm_sidecar.admin import admin_handler
from llm_sidecar.audit import AuditLog
from llm_sidecar.budget import BufferBudget
from llm_sidecar.cache.answers import AnswerCache
from llm_sidecar.cache.embedding_items import ItemCache
from llm_sidecar.cache.look_ups import LookUps
from llm_sidecar.contract.config import config_hash, render_config
from llm_sidecar.exchange import Serving
from llm_sidecar.failover.circuit import CircuitState
from llm_sidecar.guards import TokenGuard
from llm_sidecar.health import Health
from llm_sidecar.known_providers import Providers
from llm_sidecar.metrics import Metrics
from llm_sidecar.pipeline import Pipeline
from llm_sidecar.provider_reports import ProviderReports
from llm_sidecar.runtime import Transports, compile_runtime
from llm_sidecar.storage import Storage
from llm_sidecar.translation.registry import load as load_translators

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_sidecar.contract.config import ConfigDocument

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
BAD_REQUEST: Final = 400
ABANDONED_SECONDS: Final = 0.5
"""After the application has hung up, a request goes on for so long: the usage that a provider tells last is then
still read. After that the provider's connection is cut."""
GRACE_SECONDS: Final = 25.0
"""How long requests under way may take to end when the process is asked to stop. Kubernetes kills after 30 seconds by
default: what is left has to do for booking what was spent and for writing the log."""
CUT_SECONDS: Final = 0.5
"""How long a request may take to end after it was told to."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a running proxy listens."""

    host: str
    port: int
    admin_port: int


class ProxyConnection(RequestHandler):
    """An application's connection that tells when it is lost.

    aiohttp can only cancel a handler at once or never. At once would lose the usage of streams; never would let an
    abandoned request spend to its end.
    """

    __slots__ = ("_refuse_malformed", "on_lost")

    def __init__(
        self, manager: web.Server, *, refuse_malformed: Callable[[], web.StreamResponse], **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._refuse_malformed = refuse_malformed
        self.on_lost: Callable[[], object] | None = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP at all."""
        if status != BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        return self._refuse_malformed()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()


class ProxyServer(web.Server):
    """aiohttp's low-level server, over `ProxyConnection`; it knows the requests under way."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(
            self._answer, access_log=None, keepalive_timeout=75, auto_decompress=False, handler_cancellation=False
        )
        self._pipeline = pipeline
        self._under_way: set[asyncio.Task[Any]] = set()

    def __call__(self) -> RequestHandler:
        """A handler for one new connection."""
        return ProxyConnection(self, refuse_malformed=self._pipeline.refuse_malformed, loop=self._loop, **self._kwargs)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer; let a request whose application hung up go on for `ABANDONED_SECONDS`, and then cancel it."""
        connection = request.protocol
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None or not isinstance(connection, ProxyConnection):  # never so; for the type checker
            raise TypeError("a request of a ProxyConnection, in a task of its own, is expected")
        self._under_way.add(task)
        connection.on_lost = partial(loop.call_later, ABANDONED_SECONDS, task.cancel)
        try:
            return await self._pipeline.handle(request)
        finally:
            connection.on_lost = None
            self._under_way.discard(task)

    async def end_requests(self, grace_seconds: float) -> None:
        """Wait for the requests under way, and end those that do not end by themselves.

        aiohttp's own `shutdown` waits twice for as long as it was told.
        """
        await asyncio.sleep(0)  # what has arrived is begun
        self.pre_shutdown()  # no connection takes another request
        loop = asyncio.get_running_loop()
        last_moment = loop.time() + grace_seconds
        while self._under_way and (left_seconds := last_moment - loop.time()) > 0:
            await asyncio.wait(self._under_way, timeout=left_seconds)
        if self._under_way:
            for task in self._under_way:
                task.cancel()
            await asyncio.wait(self._under_way, timeout=CUT_SECONDS)


class Sidecar:
    """A proxy and all that belongs to it. Use as an asynchronous context manager."""

    def __init__(
        self,
        document: ConfigDocument,
        *,
        token: str | None,
        audit_descriptor: int = 1,
        grace_seconds: float = GRACE_SECONDS,
        state_directory: Path | None = None,
    ) -> None:
        self._first_document = document
        self._guard = TokenGuard(token)
        self._grace_seconds = grace_seconds
        self._transports = Transports()
        self._stack = AsyncExitStack()
        self._retiring: set[asyncio.Task[None]] = set()
        self._pipeline: Pipeline | None = None
        self.metrics = Metrics()
        self.health = Health(self.metrics)
        self._storage = Storage(self.health, state_directory=state_directory)
        self._reports = ProviderReports(on_hint=self._hear_of_opening)
        self._providers = Providers(on_circuit=self._circuit_changed, on_outcome=self._reports.note)
        self._audit = AuditLog(audit_descriptor, on_change=self.health.audit_changed)

    # --- configuration

    async def apply(self, document: ConfigDocument) -> Pipeline:
        """Serve requests from now on with this configuration. Raises `UnusableConfig`, and changes nothing then."""
        digest = config_hash(render_config(document))
        runtime = compile_runtime(document, digest, self._transports)
        backing = await self._storage.prepare(document)
        look_ups = LookUps(backing.store) if backing else None
        serving = Serving(
            runtime,
            quota=backing.quota(document) if backing else None,
            cache=AnswerCache(backing.store, runtime.team, look_ups=look_ups) if backing else None,
            items=ItemCache(backing.store, runtime.team, look_ups=look_ups) if backing else None,
            rates=backing.rates if backing else None,
            store_use=backing.use if backing else None,
        )
        if self._pipeline is None:
            self._pipeline = Pipeline(
                serving,
                guard=self._guard,
                budget=BufferBudget(),
                metrics=self.metrics,
                audit=self._audit,
                providers=self._providers,
            )
        self._pipeline.serving = serving
        self._storage.switch_to(backing)
        self._reports.configure(document, backing.store if backing else None)
        for provider, model in self._providers.keep(runtime.routes.providers):
            self.metrics.circuit_forgotten(provider, model)
        for pool in self._transports.keep_only(runtime.egresses):
            self._in_background(pool.retire())
        if languages := runtime.routes.foreign_languages():
            # In a thread, which shares the interpreter: requests go on meanwhile.
            self._in_background(asyncio.to_thread(load_translators, languages))
        self.health.config_loaded(digest)
        return self._pipeline

    def _circuit_changed(self, provider: str, model: str, state: CircuitState) -> None:
        self.metrics.circuit_changed(provider, model, state)
        if state is CircuitState.OPEN:
            self._reports.opened(provider, model)

    def _hear_of_opening(self, provider: str, model: str) -> None:
        """Another proxy's circuit opened: one request may find out here, before all others do."""
        self._providers.hint_failing(provider, model)

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    # --- life

    async def start(self, *, port: int, admin_port: int, admin_host: str = LOOPBACK) -> Listening:
        """Listen. Raises `OSError` where a port is taken, `UnusableConfig`."""
        try:
            pipeline = await self.apply(self._first_document)
            proxy = ProxyServer(pipeline)
            admin = web.Server(admin_handler(self.metrics, self.health), access_log=None)
            # In this order, because listeners are closed in the opposite one: health is told until the very end.
            bound_admin_port = await self._listen(admin, admin_host, admin_port)
            proxy_port = await self._listen(proxy, LOOPBACK, port)
        except BaseException:
            await self.stop()
            raise
        # What exists now stays: the collector need not look at it again, and may run less often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        gc.enable()
        self._reports.start()
        self.health.ready = True
        return Listening(LOOPBACK, proxy_port, bound_admin_port)

    async def _listen(self, server: web.Server, host: str, port: int) -> int:
        runner = web.ServerRunner(server, shutdown_timeout=CUT_SECONDS)
        await runner.setup()
        # What is pushed last comes first: no new connections, then the end of requests, then of connections.
        self._stack.push_async_callback(runner.cleanup)
        if isinstance(server, ProxyServer):
            self._stack.push_async_callback(server.end_requests, self._grace_seconds)
        site = web.TCPSite(runner, host, port, reuse_address=True)
        await site.start()
        self._stack.push_async_callback(site.stop)
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """End: requests under way are answered, what was spent is booked, connections are closed."""
        self.health.ready = False
        await self._stack.aclose()
        if self._pipeline is not None:
            await self._pipeline.close()
        await self._reports.close()
        await self._storage.close()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._transports.close()
        await self._audit.close()
