"""The whole webhook in one process: its listeners, its certificate, and kopf watching an API server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_operator.inject import InjectionSettings
from llm_operator.known import Known, watch_cluster
from llm_operator.webhook import serve
from llm_operator.webhook_settings import WebhookSettings
from tests.golden.injection import SETTINGS
from tests.webhook.conftest import MountedSecret
from tests.webhook.fake_api_server import FakeApiServer
from tests.webhook.reviews import pod, wire_review

Watch = Callable[[Known, threading.Event], None]


def _settings(directory: Path) -> WebhookSettings:
    return WebhookSettings(
        injection=InjectionSettings(**SETTINGS),
        certificate_directory=directory,
        host="127.0.0.1",
        port=0,
        admin_host="127.0.0.1",
        admin_port=0,
        drain_seconds=0,
    )


def _knows_everything(known: Known, stop: threading.Event) -> None:
    metadata = {"namespace": "payments", "name": "default", "uid": "1"}
    known.put_quota({"metadata": metadata, "spec": {}})
    known.complete = True
    stop.wait()


class _Running:
    """A webhook under test."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.ports: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Task[int]


@asynccontextmanager
async def _running(directory: Path, watch: Watch = _knows_everything) -> AsyncIterator[_Running]:
    running = _Running()
    running.ended = asyncio.create_task(
        serve(
            _settings(directory),
            stopping=running.stopping,
            watch=watch,
            on_serving=lambda *ports: running.ports.set_result(ports),
        )
    )
    try:
        yield running
    finally:
        running.stopping.set()
        await running.ended


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks until it holds: what is waited for comes from another thread."""
    end = time.monotonic() + 20
    while not await condition():
        assert time.monotonic() < end, "it never came to hold"


async def _is_ready(client: aiohttp.ClientSession, admin_port: int) -> bool:
    async with client.get(f"http://127.0.0.1:{admin_port}/readyz") as response:
        return response.status == 200


async def test_it_serves_once_certificate_and_teams_are_there_and_stops_when_told(mounted: MountedSecret) -> None:
    mounted.show()
    async with _running(mounted.directory) as running, aiohttp.ClientSession() as client:
        port, admin_port = await running.ports
        await _eventually(lambda: _is_ready(client, admin_port))
        response = await _ask(client, mounted, port)
        assert response["allowed"]
        assert "patch" in response
        async with client.get(f"http://127.0.0.1:{admin_port}/metrics") as metrics:
            told = await metrics.text()
        assert "llm_operator_webhook_certificate_expiry_timestamp_seconds 1." in told
        running.stopping.set()
        assert await running.ended == 0


async def _ask(client: aiohttp.ClientSession, mounted: MountedSecret, port: int, **annotations: str) -> dict[str, Any]:
    async with client.post(
        f"https://localhost:{port}/inject", data=wire_review(pod(**annotations)), ssl=mounted.client_context()
    ) as response:
        found: dict[str, Any] = (await response.json())["response"]
        return found


async def test_it_stops_when_told_while_it_still_waits_for_a_certificate(tmp_path: Path) -> None:
    async with _running(tmp_path) as running:
        running.stopping.set()
        assert await running.ended == 0


async def test_a_watch_that_fails_ends_the_process_with_an_error(
    mounted: MountedSecret, caplog: pytest.LogCaptureFixture
) -> None:
    """The kubelet starts it anew: a webhook that knows nothing would refuse everyone."""

    def fails(_known: Known, _stop: threading.Event) -> None:
        raise PermissionError("teamquotas is forbidden")

    mounted.show()
    async with _running(mounted.directory, watch=fails) as running:
        assert await running.ended == 1
    assert "teamquotas is forbidden" in caplog.text


async def test_kopf_tells_of_teams_and_namespaces_as_they_come_and_go(
    mounted: MountedSecret, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ready before everything is listed, then as current as the watches; and kopf writes nothing."""
    mounted.show()
    api = FakeApiServer()
    api.put("namespaces", "payments", metadata={"labels": {"stage": "production"}})
    api.put("teamquotas", "default", namespace="payments", spec={})
    api.put("teamquotas", "shared", namespace="platform", spec={"allowedNamespaces": _STAGE})
    api.listing_allowed.clear()
    async with api.serving() as address:
        kubeconfig = tmp_path_factory.mktemp("kubeconfig") / "config"
        kubeconfig.write_text(_KUBECONFIG.format(address=address), encoding="utf-8")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        async with _running(mounted.directory, watch=watch_cluster) as running, aiohttp.ClientSession() as client:
            port, admin_port = await running.ports
            await _eventually(lambda: _has_asked(api))
            assert not await _is_ready(client, admin_port)
            api.listing_allowed.set()
            await _eventually(lambda: _is_ready(client, admin_port))

            async def is_allowed(team: str) -> bool:
                return bool((await _ask(client, mounted, port, team=team))["allowed"])

            assert await is_allowed("default")
            assert await is_allowed("platform/shared")
            api.put("namespaces", "payments", metadata={"labels": {"stage": "test"}})
            await _eventually(lambda: _not(is_allowed("platform/shared")))
            api.put("teamquotas", "shared", namespace="platform", spec={"allowedNamespaces": {"from": "All"}})
            await _eventually(lambda: is_allowed("platform/shared"))
            api.remove("teamquotas", "shared", namespace="platform")
            await _eventually(lambda: _not(is_allowed("platform/shared")))
            api.put("teamquotas", "late", namespace="payments", spec={})
            await _eventually(lambda: is_allowed("late"))
            running.stopping.set()
            assert await running.ended == 0
    assert {method for method, _ in api.requests} == {"GET"}
    assert not [path for _, path in api.requests if "pods" in path or "secrets" in path]


_STAGE = {"from": "Selector", "selector": {"matchLabels": {"stage": "production"}}}

_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{address}"}}}}]
users: [{{name: test, user: {{token: of-no-use}}}}]
"""


async def _has_asked(api: FakeApiServer) -> bool:
    await asyncio.sleep(0)
    return ("GET", "/api/v1/namespaces") in api.requests


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer


def test_a_deletion_that_comes_after_the_next_of_that_name_takes_nothing_away() -> None:
    known = Known()
    old = {"metadata": {"namespace": "a", "name": "b", "uid": "1", "labels": {"x": "1"}}, "spec": {}}
    new = {"metadata": {"namespace": "a", "name": "b", "uid": "2", "labels": {"x": "2"}}, "spec": {}}
    for document in (old, new):
        known.put_quota(document)
        known.put_namespace(document)
    known.drop_quota(old)
    known.drop_namespace(old)
    assert known.team_quota("a", "b") is not None
    assert known.namespace_labels("b") == {"x": "2"}
    known.drop_quota(new)
    known.drop_namespace(new)
    assert known.team_quota("a", "b") is None
    assert known.namespace_labels("b") == {}
