"""The process: its parts start in order, and none ends without the others."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import pytest

from llm_operator.controller import Watch, serve
from llm_operator.kube import TEAM_QUOTA, ApiError
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.watches import Heard
from llm_operator.settings import Settings
from tests.controller.cluster import SYSTEM, Cluster


async def _serve(cluster: Cluster, watch: Watch, stopping: asyncio.Event, ports: asyncio.Queue[int]) -> int:
    metrics = ControllerMetrics()
    settings = Settings(namespace=SYSTEM, admin_host="127.0.0.1", admin_port=0)
    return await serve(
        settings,
        kube=cluster.kube,
        metrics=metrics,
        ask=cluster.ask,
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
