"""The webhook process: wires the listeners, the certificate and kopf's watches together. The rest is elsewhere.

kopf gets a thread and a loop of its own, because it takes the loop that it runs in for its own: it handles the
signals, and when it ends it cancels every task that it finds, a review's included.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from llm_operator.admin_server import serve_admin
from llm_operator.admission import Admission
from llm_operator.admission_server import serve_admission
from llm_operator.certificate_reader import CertificateReader
from llm_operator.known import Known, watch_cluster
from llm_operator.webhook_metrics import WebhookMetrics
from llm_operator.webhook_settings import WebhookSettings

_log: Final = logging.getLogger(__name__)


def run(settings: WebhookSettings) -> int:
    """Serve until SIGTERM or SIGINT. The exit code: 0, or 1 where the cluster could not be watched."""
    return asyncio.run(_main(settings))


async def _main(settings: WebhookSettings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return await serve(settings, stopping=stopping)


async def serve(
    settings: WebhookSettings,
    *,
    stopping: asyncio.Event,
    watch: Callable[[Known, threading.Event], None] = watch_cluster,
    on_serving: Callable[[int, int], None] = lambda _port, _admin_port: None,
) -> int:
    """Serve until `stopping` is set.

    `watch` fills what is known of the cluster, in a thread, until its event is set. `on_serving` gets the ports.
    """
    known, metrics = Known(), WebhookMetrics()
    certificate = CertificateReader(
        settings.certificate_directory,
        on_loaded=lambda expires_at: metrics.certificate_expiry.set(expires_at.timestamp()),
    )
    admission = Admission(teams=known, settings=settings.injection, metrics=metrics)

    def readiness() -> dict[str, bool]:
        return {"certificate": certificate.usable, "teams": known.complete, "running": not stopping.is_set()}

    async with (
        serve_admin(metrics.exposition, readiness, host=settings.admin_host, port=settings.admin_port) as admin_port,
        _background(certificate, known, watch, stopping) as failures,
    ):
        if await _loaded(certificate, stopping):
            async with serve_admission(
                admission, context=certificate.context, host=settings.host, port=settings.port
            ) as port:
                _log.info("answering admission reviews on port %d", port)
                on_serving(port, admin_port)
                await stopping.wait()
                # The Service forgets this pod a moment after it became unready; until then it is still called.
                await asyncio.sleep(settings.drain_seconds)
    return 1 if failures else 0


@asynccontextmanager
async def _background(
    certificate: CertificateReader,
    known: Known,
    watch: Callable[[Known, threading.Event], None],
    stopping: asyncio.Event,
) -> AsyncIterator[list[BaseException]]:
    """Look after the certificate and the cluster meanwhile. What ends early is in the list, and stops the process:
    the kubelet starts it anew.
    """
    failures: list[BaseException] = []
    stop_watching = threading.Event()

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled() or (stop_watching.is_set() and task.exception() is None):
            return
        error = task.exception() or RuntimeError("a task that never ends has ended")
        _log.error("the webhook stops: %s: %s", type(error).__name__, error)
        failures.append(error)
        stopping.set()

    refreshing = asyncio.create_task(certificate.run())
    watching = asyncio.create_task(asyncio.to_thread(watch, known, stop_watching))
    for task in (refreshing, watching):
        task.add_done_callback(ended)
    try:
        yield failures
    finally:
        stop_watching.set()
        refreshing.cancel()
        await asyncio.wait([refreshing, watching])


async def _loaded(certificate: CertificateReader, stopping: asyncio.Event) -> bool:
    """Wait for the first certificate; False if the process is to stop before."""
    waiting = [asyncio.create_task(certificate.loaded()), asyncio.create_task(stopping.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return not stopping.is_set()
