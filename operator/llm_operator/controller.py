"""The controller process: wires the watches, the reconciler, the webhook's certificates and the admin port together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import urlsplit

from llm_operator.admin_server import serve_admin
from llm_operator.certificate_writer import CertificateKeeper
from llm_operator.kube import Document, Kind, Kube, KubeClient
from llm_operator.reconcile.health_probe import HTTPProbe, ProbeProvider
from llm_operator.reconcile.key_check import Ask, ProviderAsker
from llm_operator.reconcile.key_transport import AddressPolicy, api_server_addresses
from llm_operator.reconcile.loop import Reconciler
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.purge_store import RedisPurges
from llm_operator.reconcile.report_reader import RedisReports
from llm_operator.reconcile.state import Surroundings
from llm_operator.reconcile.usage_reader import RedisUsages
from llm_operator.reconcile.watches import Heard, login, watch_cluster
from llm_operator.settings import Settings

_log: Final = logging.getLogger(__name__)

Watch = Callable[[Heard, threading.Event], None]


def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT. The exit code: 0, or 1 where something ended that must not."""
    return asyncio.run(_main(settings))


async def _main(settings: Settings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    metrics = ControllerMetrics()
    server = login().server or ""
    policy = AddressPolicy(api_server=await asyncio.to_thread(api_server_addresses, urlsplit(server).hostname or ""))
    kube = KubeClient(login, on_call=metrics.count_call)
    try:
        return await serve(
            settings,
            kube=kube,
            metrics=metrics,
            ask=ProviderAsker(policy),
            probe=HTTPProbe(policy),
            stopping=stopping,
        )
    finally:
        await kube.close()


async def serve(
    settings: Settings,
    *,
    kube: Kube,
    metrics: ControllerMetrics,
    ask: Ask,
    probe: ProbeProvider,
    stopping: asyncio.Event,
    watch: Watch = watch_cluster,
    on_serving: Callable[[int], None] = lambda _port: None,
) -> int:
    """Work until `stopping` is set. `watch` runs in a thread and tells of changes; `on_serving` gets the port."""
    loop = asyncio.get_running_loop()
    url, ca_bundle = settings.redis_url, settings.redis_ca_bundle
    reports = RedisReports(url, ca_bundle=ca_bundle) if url is not None else None
    usages = RedisUsages(url, ca_bundle=ca_bundle) if url is not None else None
    purges = RedisPurges(url, ca_bundle=ca_bundle) if url is not None else None
    reconciler = Reconciler(
        Surroundings(
            kube=kube,
            settings=settings,
            ask=ask,
            probe=probe,
            reports=reports,
            usages=usages,
            purges=purges,
            clock=loop.time,
            metrics=metrics,
        )
    )
    parts: list[Coroutine[Any, Any, None]] = [reconciler.run(), _watching(reconciler, stopping, watch)]
    if settings.webhook_secret and settings.webhook_configuration:
        keeper = CertificateKeeper(
            kube,
            namespace=settings.namespace,
            secret=settings.webhook_secret,
            webhook_configuration=settings.webhook_configuration,
            service_names=settings.webhook_service_names,
        )
        parts.append(keeper.run())

    def readiness() -> dict[str, bool]:
        return {"listed": reconciler.synced.is_set(), "running": not stopping.is_set()}

    admin = serve_admin(metrics.exposition, readiness, host=settings.admin_host, port=settings.admin_port)
    async with admin as port:
        on_serving(port)
        return await _until_one_ends(parts, stopping)


async def _until_one_ends(parts: list[Coroutine[Any, Any, None]], stopping: asyncio.Event) -> int:
    """When one part ends the process ends, and the kubelet starts it anew."""
    stop = asyncio.create_task(stopping.wait())
    tasks = [asyncio.create_task(part) for part in parts]
    await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in tasks if task.done()]
    stopping.set()
    for task in (stop, *tasks):
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            # No traceback: it could show a Secret's content.
            _log.error("the controller ends: %s: %s", type(outcome).__name__, outcome)
    return 1 if ended else 0


async def _watching(reconciler: Reconciler, stopping: asyncio.Event, watch: Watch) -> None:
    await reconciler.synced.wait()
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def heard(kind: Kind, event_type: str | None, document: Document) -> None:
        # The loop may be closed already, at the end.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(reconciler.heard, kind, event_type, document)

    watcher = asyncio.create_task(asyncio.to_thread(watch, heard, stop))
    waiter = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([watcher, waiter], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        stop.set()
        await asyncio.wait([watcher])
    watcher.result()
