"""The process: its parts start in order, and none ends without the others."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import aiohttp
import pytest
import redis.asyncio

from llm_operator.controller import Watch, serve
from llm_operator.kube import LLM_PROVIDER, TEAM_QUOTA, ApiError
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.watches import Heard
from llm_operator.settings import Settings
from llm_sidecar.contract.keys import provider_reports
from llm_sidecar.contract.provider_reports import ProviderReport, render_report, window_at
from llm_sidecar.embedded_store import embedded_store
from tests.controller.cluster import SYSTEM, Cluster


async def _serve(cluster: Cluster, watch: Watch, stopping: asyncio.Event, ports: asyncio.Queue[int]) -> int:
    metrics = ControllerMetrics()
    url = cluster.settings.redis_url
    settings = Settings(namespace=SYSTEM, admin_host="127.0.0.1", admin_port=0, redis_url=url)
    return await serve(
        settings,
        kube=cluster.kube,
        metrics=metrics,
        ask=cluster.ask,
        probe=cluster.probe,
        stopping=stopping,
        watch=watch,
        on_serving=ports.put_nowait,
    )


async def test_it_is_ready_once_everything_was_listed_and_ends_when_told() -> None:
    cluster, stopping, ports = Cluster(), asyncio.Event(), asyncio.Queue[int]()
    cluster.basics()
    is_open = asyncio.Event()
    away = ApiError(500, "InternalError")
    cluster.kube.failures = lambda _verb, _kind, _name: None if is_open.is_set() else away
    watching = threading.Event()

    def watch(heard: Heard, stop: threading.Event) -> None:
        document = cluster.kube.get_now(TEAM_QUOTA, "app", "default")
        assert document is not None
        heard(TEAM_QUOTA, None, document)
        watching.set()
        stop.wait()

    task = asyncio.create_task(_serve(cluster, watch, stopping, ports))
    base = f"http://127.0.0.1:{await ports.get()}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/readyz") as answer:
            assert answer.status == 503
        async with session.get(f"{base}/healthz") as answer:
            assert answer.status == 200
        is_open.set()
        assert await asyncio.to_thread(watching.wait, 10)
        async with session.get(f"{base}/readyz") as answer:
            assert answer.status == 200
        async with session.get(f"{base}/metrics") as answer:
            assert "llm_operator_resyncs_total" in await answer.text()
    stopping.set()

    assert await task == 0


async def test_a_watch_that_ends_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    cluster, stopping, ports = Cluster(), asyncio.Event(), asyncio.Queue[int]()

    def watch(_heard: Heard, _stop: threading.Event) -> None:
        raise RuntimeError("no permission to list")

    assert await _serve(cluster, watch, stopping, ports) == 1
    assert "the controller ends: RuntimeError" in caplog.text


async def test_what_proxies_told_the_redis_reaches_the_status_and_the_metrics() -> None:
    async with embedded_store() as url, redis.asyncio.Redis.from_url(url) as client:
        failing: Any = {name: render_report(_FAILING) for name in ("first", "second")}
        await client.hset(provider_reports(f"{SYSTEM}/openai", window_at(time.time())), mapping=failing)
        cluster, stopping, ports = Cluster(redis_url=url), asyncio.Event(), asyncio.Queue[int]()
        cluster.basics()
        task = asyncio.create_task(_serve(cluster, _watch_until_stopped, stopping, ports))
        base = f"http://127.0.0.1:{await ports.get()}"
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            text, document = "", None
            while "llm_provider_healthy{" not in text or "status" not in (document or {}):
                async with session.get(f"{base}/metrics") as answer:
                    text = await answer.text()
                document = cluster.kube.get_now(LLM_PROVIDER, SYSTEM, "openai")
                await asyncio.sleep(0.05)
        stopping.set()
        assert await task == 0

    assert 'llm_provider_healthy{provider="openai"} 0.0' in text
    assert 'llm_operator_report_reads_total{outcome="done"}' in text
    status, reason, message = cluster.condition(LLM_PROVIDER, SYSTEM, "openai", "Healthy")
    assert (status, reason) == ("False", "ErrorRateHigh")
    assert "about 100 % of attempts failed, mostly by time-outs" in message


_FAILING = ProviderReport(answered=0, answered_milliseconds=0, failures={"timeout": 9})


def _watch_until_stopped(_heard: Heard, stop: threading.Event) -> None:
    stop.wait()
