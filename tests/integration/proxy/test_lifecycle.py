"""Starting, following the configuration, and ending: without a lost request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web

from llm_sidecar import reload
from llm_sidecar.contract.config import ConfigDocument, render_config
from llm_sidecar.providers.base import ProviderSettings, Transport
from llm_sidecar.providers.factory import LLMProviderFactory
from llm_sidecar.providers.openai import OpenAIProvider
from llm_sidecar.published_config import PublishedConfig
from llm_sidecar.reload import Reloader
from tests.integration.processes import reserved_ports
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_ANSWER,
    CHAT_PATH,
    KEY,
    TOKEN,
    Upstream,
    chat_body,
    document,
    provider,
    streaming,
    until,
)
from tests.integration.proxy.wire import CHAT_CONTENT, CHAT_STREAM

Serve = Callable[..., Awaitable[Upstream]]


def write(path: Path, content: bytes) -> None:
    """As the kubelet does: the new content appears at once."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.rename(path)


# --- configuration while running


async def test_a_reload_takes_new_key_and_alias_without_a_lost_request(
    start_proxy: StartProxy, serve: Serve, tmp_path: Path
) -> None:
    async def unhurried(_request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.Response(body=CHAT_ANSWER, content_type="application/json")

    upstream = await serve(unhurried)
    path = tmp_path / "config.json"

    def config(number: int) -> bytes:
        model = {"name": "m", "aliases": [f"alias-{number}"]}
        return render_config(document(provider("p", upstream.base_url, credential=f"key-{number}", models=[model])))

    path.write_bytes(config(0))
    source = PublishedConfig(path)
    proxy = await start_proxy(source.load())
    reloader = Reloader(source, proxy.sidecar.apply, proxy.sidecar.health)
    stop = asyncio.Event()
    statuses: list[int] = []

    async def ask_on() -> None:
        while not stop.is_set():
            statuses.append((await proxy.chat()).status)

    askers = [asyncio.ensure_future(ask_on()) for _ in range(50)]
    for number in range(1, 6):
        seen = len(statuses)
        await until(lambda: len(statuses) > seen + 60)  # noqa: B023 - called at once
        write(path, config(number))
        await reloader.look()
        reply = await proxy.chat(model=f"alias-{number}")
        assert reply.status == 200
        assert any(seen.headers["authorization"] == f"Bearer key-{number}" for seen in upstream.seen[-60:])
    stop.set()
    await asyncio.gather(*askers)
    assert set(statuses) == {200}
    assert (await proxy.chat(model="alias-0")).code == "model_not_found"
    after = len(upstream.seen)
    await proxy.chat()
    assert upstream.seen[after].headers["authorization"] == "Bearer key-5"


BROKEN = {
    "no-json": b"{",
    "empty": b"",
    "wrong-field": b'{"schemaVersion":1,"minimumReaderVersion":1,"provider":[]}',
    "newer-reader": b'{"schemaVersion":9,"minimumReaderVersion":9}',
    "doubled": b'{"schemaVersion":1,"schemaVersion":1,"minimumReaderVersion":1}',
    "unknown-type": render_config(document(provider("p", "http://127.0.0.1:1"))).replace(b'"OpenAI"', b'"Nobody"'),
    "missing-key": render_config(document(provider("p", "http://127.0.0.1:1"))).replace(
        b'"credential":', b'"caBundle":'
    ),
    "bad-bundle": render_config(
        document(
            provider(
                "p",
                "http://127.0.0.1:1",
                ca_bundle="no PEM",
                egress={"caBundleSecretRef": {"name": "s", "key": "k"}},
            )
        )
    ),
    "bad-certificate": render_config(
        document(
            provider(
                "p",
                "http://127.0.0.1:1",
                client_certificate={"certificate": "no PEM", "privateKey": "no PEM"},
                egress={"clientCertificateSecretRef": {"name": "s"}},
            )
        )
    ),
    "limits-without-store": render_config(
        document(provider("p", "http://127.0.0.1:1"), team={"limits": [{"name": "l", "per": "Day", "requests": 1}]})
    ),
    "bad-store-url": render_config(document(provider("p", "http://127.0.0.1:1"), store_url="nonsense://x:y")),
    "bad-proxy": render_config(
        document(provider("p", "http://127.0.0.1:1", egress={"proxyURL": "http://proxy.example:3128"}))
    ).replace(b"proxy.example:3128", b"proxy.example:99999"),
}


@pytest.mark.logs_errors
@pytest.mark.parametrize("case", BROKEN)
async def test_a_configuration_that_cannot_be_used_changes_nothing_and_is_told(
    start_proxy: StartProxy, serve: Serve, tmp_path: Path, case: str
) -> None:
    path = tmp_path / "config.json"
    good = render_config(document(provider("p", (await serve()).base_url)))
    path.write_bytes(good)
    source = PublishedConfig(path)
    proxy = await start_proxy(source.load())
    reloader = Reloader(source, proxy.sidecar.apply, proxy.sidecar.health)
    before = (await proxy.admin("/readyz")).json()["config"]["hash"]

    write(path, BROKEN[case])
    await reloader.look()

    await proxy.is_well()
    readiness = await proxy.admin("/readyz")
    assert readiness.status == 200
    assert readiness.json()["config"]["hash"] == before
    assert readiness.json()["config"]["problems"]
    assert b"sk-provider-key" not in readiness.body
    assert proxy.metric("llm_sidecar_degraded", part="config") == 1

    write(path, good)
    await reloader.look()
    assert (await proxy.admin("/readyz")).json()["config"] == {"hash": before, "problems": []}
    assert proxy.metric("llm_sidecar_degraded", part="config") == 0


@pytest.mark.logs_errors
async def test_a_file_that_vanishes_and_returns_unchanged_is_well_again(
    start_proxy: StartProxy, serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    good = render_config(document(provider("p", (await serve()).base_url)))
    path.write_bytes(good)
    source = PublishedConfig(path)
    proxy = await start_proxy(source.load())
    reloader = Reloader(source, proxy.sidecar.apply, proxy.sidecar.health)
    path.unlink()
    for _ in range(2):
        await reloader.look()
    assert proxy.metric("llm_sidecar_degraded", part="config") == 1
    await proxy.is_well()
    path.write_bytes(good)
    await reloader.look()
    assert proxy.metric("llm_sidecar_degraded", part="config") == 0


@pytest.mark.logs_errors
@pytest.mark.parametrize("where", ["fingerprint", "load", "apply"])
async def test_a_defect_while_reloading_is_told_and_does_not_end_the_reloading(
    start_proxy: StartProxy, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "config.json"
    one = provider("p", (await serve()).base_url)
    path.write_bytes(render_config(document(one)))
    source = PublishedConfig(path)
    proxy = await start_proxy(source.load())
    broken = False

    def fails_in(place: str) -> None:
        if broken and place == where:
            raise KeyError("what should be there")

    class Source:
        def fingerprint(self) -> bytes:
            fails_in("fingerprint")
            return source.fingerprint()

        def load(self) -> ConfigDocument:
            fails_in("load")
            return source.load()

    async def apply(changed: ConfigDocument) -> None:
        fails_in("apply")
        await proxy.sidecar.apply(changed)

    reloader = Reloader(Source(), apply, proxy.sidecar.health)
    monkeypatch.setattr(reload, "POLL_SECONDS", 0.005)
    reloading = asyncio.ensure_future(reloader.run())
    broken = True
    write(path, render_config(document(one, provider("q", "http://127.0.0.1:1", models=["n"]))))
    await until(lambda: proxy.metric("llm_sidecar_degraded", part="config") == 1)
    [problem] = (await proxy.admin("/readyz")).json()["config"]["problems"]
    assert "defect" in problem
    assert "KeyError" in problem
    await proxy.is_well()

    broken = False
    write(path, render_config(document(one, provider("q", "http://127.0.0.1:1", models=["o"]))))
    await until(lambda: proxy.metric("llm_sidecar_degraded", part="config") == 0)
    assert not reloading.done()
    reloading.cancel()
    await asyncio.gather(reloading, return_exceptions=True)


@pytest.mark.logs_errors
async def test_a_provider_type_that_cannot_be_used_is_a_problem_of_its_resource(
    start_proxy: StartProxy, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Acme(OpenAIProvider):
        type = "Acme"

        def __init__(self, settings: ProviderSettings, transport: Transport) -> None:
            raise TypeError(f"bad key {settings.key and settings.key.reveal()} for {transport}")

    monkeypatch.setattr(LLMProviderFactory, "_registered", {"Acme": Acme})
    path = tmp_path / "config.json"
    good = provider("p", (await serve()).base_url)
    path.write_bytes(render_config(document(good)))
    source = PublishedConfig(path)
    proxy = await start_proxy(source.load())
    reloader = Reloader(source, proxy.sidecar.apply, proxy.sidecar.health)
    bad = provider("q", "http://127.0.0.1:1/v1", type="Acme", apis=["OpenAIChat"])
    write(path, render_config(document(good, bad)))
    await reloader.look()

    [problem] = (await proxy.admin("/readyz")).json()["config"]["problems"]
    assert problem.startswith("LLMProvider llm-system/q: spec.type: the class of provider type 'Acme' failed to start")
    assert "TypeError" in problem
    assert KEY not in problem
    await proxy.is_well()


async def test_a_request_under_way_ends_with_the_configuration_that_it_began_with(
    start_proxy: StartProxy, serve: Serve
) -> None:
    """Its connections are closed only then, although nobody else uses that egress any more."""
    hold = asyncio.Event()
    upstream = await serve(streaming(*CHAT_CONTENT, *CHAT_STREAM[3:], hold=hold))
    proxy = await start_proxy(document(provider("p", upstream.base_url, egress={"proxyURL": None})))
    response = await proxy.open("POST", CHAT_PATH, data=chat_body(stream=True))
    await response.content.readany()
    other = document(provider("q", upstream.base_url, models=["n"], egress={"proxyURL": "http://127.0.0.1:1"}))
    await proxy.sidecar.apply(other)
    assert (await proxy.chat()).code == "model_not_found"
    hold.set()
    rest = await response.content.read()
    assert rest.endswith(b"data: [DONE]\n\n") or b"[DONE]" in rest or rest == b""
    response.close()


async def test_a_request_whose_body_comes_after_a_reload_is_still_served(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve()
    proxy = await start_proxy(document(provider("p", upstream.base_url)))
    body = chat_body()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body[:1]
    )
    budget = proxy.sidecar._pipeline._budget  # type: ignore[union-attr]
    await until(lambda: budget.held_bytes == 1)
    await proxy.sidecar.apply(
        document(provider("q", upstream.base_url, models=["n"], egress={"proxyURL": "http://127.0.0.1:1"}))
    )
    await asyncio.sleep(0)
    writer.write(body[1:])
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 ")
    writer.close()


# --- the end


async def test_stopping_lets_requests_and_streams_end(start_proxy: StartProxy, serve: Serve) -> None:
    hold = asyncio.Event()

    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if orjson.loads(body).get("stream"):
            return await streaming(*CHAT_CONTENT, hold=None)(request, body) if hold.is_set() else await held(request)
        await hold.wait()
        return web.Response(body=CHAT_ANSWER, content_type="application/json")

    async def held(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(CHAT_CONTENT))
        await hold.wait()
        await response.write(b"".join(CHAT_STREAM[3:]))
        await response.write_eof()
        return response

    upstream = await serve(answer)
    proxy = await start_proxy(document(provider("p", upstream.base_url)))
    plain_call = asyncio.ensure_future(proxy.chat())
    stream_call = asyncio.ensure_future(proxy.chat(stream=True))
    await until(lambda: len(upstream.seen) == 2)
    stopping = asyncio.ensure_future(proxy.sidecar.stop())
    await until(lambda: not proxy.sidecar.health.ready)

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    async with asyncio.timeout(2):
        while not await refused():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)
    hold.set()
    assert (await plain_call).body == CHAT_ANSWER
    assert (await stream_call).body.endswith(b"data: [DONE]\n\n")
    await asyncio.wait_for(stopping, 2)
    assert len(proxy.audit_lines()) == 2


async def test_a_request_that_does_not_end_is_cut_after_the_grace_period(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve(streaming(*CHAT_CONTENT, hold=asyncio.Event()))
    proxy = await start_proxy(document(provider("p", upstream.base_url)))
    response: aiohttp.ClientResponse = await proxy.open("POST", CHAT_PATH, data=chat_body(stream=True))
    await response.content.readany()
    began = time.monotonic()
    await asyncio.wait_for(proxy.sidecar.stop(), 6)
    assert 1.5 < time.monotonic() - began < 5
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.content.read()
    response.close()
    assert len(proxy.audit_lines()) == 1


async def test_idle_connections_do_not_delay_the_end(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await start_proxy(document(provider("p", (await serve()).base_url)))
    await asyncio.gather(*(proxy.chat() for _ in range(5)))
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    began = time.monotonic()
    await proxy.sidecar.stop()
    writer.close()
    assert time.monotonic() - began < 1
    assert len(proxy.audit_lines()) == 5


async def test_the_admin_listener_tells_health_and_nothing_else(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await start_proxy(document(provider("p", (await serve()).base_url)))
    await proxy.is_well()
    assert (await proxy.admin("/healthz")).body == b"ok\n"
    assert (await proxy.admin("/readyz")).json()["ready"] is True
    metrics = (await proxy.admin("/metrics")).body
    assert b"llm_requests_total" in metrics
    assert TOKEN.encode() not in metrics
    assert (await proxy.admin(CHAT_PATH)).status == 404
    url = f"http://127.0.0.1:{proxy.listening.admin_port}/metrics"
    async with proxy.session.post(url) as response:
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
    proxy.sidecar.health.ready = False
    assert (await proxy.admin("/readyz")).status == 503


# --- the process

PROVIDER = """\
apiVersion: llm-sidecar.io/v1alpha1
kind: LLMProvider
metadata: {name: p}
spec: {type: OpenAI, baseURL: "%s/v1", credentials: {secretKeyRef: {name: s, key: k}}, models: [{name: m}]}
"""
SECRET = """\
---
apiVersion: v1
kind: Secret
metadata: {name: s, labels: {llm-sidecar.io/credentials: "true"}}
stringData: {k: secret-of-the-provider}
"""


def run(arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "llm_sidecar", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=15)
    return process.returncode, stderr.decode()


@pytest.mark.parametrize(
    ("manifests", "words"),
    [
        (": : :", ["file.yaml"]),
        (PROVIDER % "http://127.0.0.1:1", ["Secret", "s"]),
        ((PROVIDER % "http://127.0.0.1:1") + SECRET.replace("k: secret", "other: secret"), ["k"]),
        ((PROVIDER % "ftp://x") + SECRET, ["baseURL"]),
        ((PROVIDER % "http://127.0.0.1:1").replace("OpenAI,", "Nobody,") + SECRET, ["file.yaml:4", "spec.type"]),
        ("", ["LLMProvider"]),
    ],
    ids=["no-yaml", "no-secret", "no-key", "bad-url", "unknown-type", "nothing"],
)
def test_manifests_that_cannot_be_used_end_the_start_with_the_reason(
    tmp_path: Path, store_url: str, manifests: str, words: list[str]
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(manifests)
    code, told = ended(run(["run", "-f", str(path), "--redis", store_url, "--port", "0", "--admin-port", "0"]))
    assert code == 1, told
    assert "Traceback" not in told
    assert "secret-of-the-provider" not in told
    for word in words:
        assert word in told, told


def test_a_file_that_is_not_there_ends_the_start_with_the_reason(tmp_path: Path, store_url: str) -> None:
    code, told = ended(run(["run", "-f", str(tmp_path / "none.yaml"), "--redis", store_url]))
    assert code == 1
    assert "none.yaml" in told
    assert "Traceback" not in told


def test_a_store_url_that_is_none_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text((PROVIDER % "http://127.0.0.1:1") + SECRET)
    code, told = ended(run(["run", "-f", str(path), "--redis", "nonsense://u:password@h", "--port", "0"]))
    assert code == 2
    assert "argument --redis: the store's URL must begin with" in told
    assert "Traceback" not in told
    assert "password" not in told


def test_a_port_that_is_taken_ends_the_start_with_the_reason(tmp_path: Path, store_url: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text((PROVIDER % "http://127.0.0.1:1") + SECRET)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, told = ended(run(["run", "-f", str(path), "--redis", store_url, "--port", port, "--admin-port", "0"]))
    assert code == 1
    assert port in told
    assert "Traceback" not in told


def test_serve_without_a_token_or_a_file_ends_with_the_reason(tmp_path: Path) -> None:
    code, told = ended(run(["serve", "--config", str(tmp_path / "none")], LLM_SIDECAR_TOKEN=""))
    assert (code, "LLM_SIDECAR_TOKEN" in told) == (1, True)
    code, told = ended(run(["serve", "--config", str(tmp_path / "none")], LLM_SIDECAR_TOKEN="t"))
    assert code == 1
    assert "config file" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_ends_at_a_signal_with_status_0_and_all_lines_written(
    serve: Serve, tmp_path: Path, number: signal.Signals
) -> None:
    """Idle connections are open, the provider's too; the reader of the log gets every line."""
    upstream = await serve()
    path = tmp_path / "config.json"
    path.write_bytes(render_config(document(provider("p", upstream.base_url))))
    with reserved_ports(2) as (port, admin_port):
        process = run(
            [
                "serve",
                "--config",
                str(path),
                "--port",
                str(port),
                "--admin-port",
                str(admin_port),
                "--admin-host",
                "127.0.0.1",
            ],
            LLM_SIDECAR_TOKEN=TOKEN,
        )
        try:
            async with aiohttp.ClientSession(headers={"x-api-key": TOKEN}) as session:
                await ready(session, admin_port)
                for _ in range(20):
                    async with session.post(f"http://127.0.0.1:{port}{CHAT_PATH}", data=chat_body()) as response:
                        assert response.status == 200
                        await response.read()
                began = time.monotonic()
                process.send_signal(number)
                stdout, stderr = await asyncio.to_thread(process.communicate, timeout=10)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert process.returncode == 0, stderr.decode()
    assert time.monotonic() - began < 2
    assert len([json.loads(line) for line in stdout.splitlines()]) == 20
    assert b"Traceback" not in stderr


async def ready(session: aiohttp.ClientSession, admin_port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{admin_port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.02)
