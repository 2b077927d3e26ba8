"""The end comes when it was promised, whatever is stuck: a provider, an application, or who reads the log."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from llm_sidecar.app import CUT_SECONDS, GRACE_SECONDS, ProxyServer, Sidecar
from llm_sidecar.contract.config import ConfigDocument, render_config
from tests.integration.processes import reserved_ports
from tests.integration.proxy.harness import (
    CHAT_PATH,
    PATIENCE_SECONDS,
    TOKEN,
    Proxy,
    Upstream,
    chat_body,
    document,
    provider,
    until,
)

Serve = Callable[..., Awaitable[Upstream]]

POD_SECONDS = 30
"""Kubernetes' default `terminationGracePeriodSeconds`."""
AUDIT_SECONDS = 2


async def never(_request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
    """A provider that does not answer."""
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def proxy_with_grace(config: ConfigDocument, audit_path: Path, grace_seconds: float) -> AsyncIterator[Proxy]:
    """A proxy that the test stops."""
    with audit_path.open("ab") as audit:
        sidecar = Sidecar(config, token=TOKEN, audit_descriptor=audit.fileno(), grace_seconds=grace_seconds)
        listening = await sidecar.start(port=0, admin_port=0)
        async with aiohttp.ClientSession() as session:
            yield Proxy(sidecar=sidecar, listening=listening, session=session, audit_path=audit_path)
        await sidecar.stop()


async def stop_seconds(proxy: Proxy) -> float:
    """How long the end takes."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await proxy.sidecar.stop()
    return clock() - began


async def test_requests_that_do_not_end_are_cut_after_the_grace_period_and_not_after_twice_that(
    serve: Serve, tmp_path: Path
) -> None:
    upstream = await serve(never)
    async with proxy_with_grace(document(provider("p", upstream.base_url)), tmp_path / "audit", 1.5) as proxy:
        calls = [asyncio.ensure_future(proxy.chat()) for _ in range(3)]
        await until(lambda: len(upstream.seen) == 3)

        assert 1.5 <= await stop_seconds(proxy) < 2.5

        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, aiohttp.ClientError) for result in results), results
        assert [line["client_gone"] for line in proxy.audit_lines()] == [True] * 3


@pytest.mark.logs_errors
async def test_a_handler_that_does_not_let_itself_be_cancelled_delays_the_end_by_little(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = await serve(never)
    release = asyncio.Event()

    async with proxy_with_grace(document(provider("p", upstream.base_url)), tmp_path / "audit", 0.1) as proxy:
        pipeline = proxy.sidecar._pipeline
        assert pipeline is not None
        answer = pipeline._answer

        async def stubborn(*arguments: object) -> web.StreamResponse:
            try:
                return await answer(*arguments)  # type: ignore[arg-type]
            finally:
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue

        monkeypatch.setattr(pipeline, "_answer", stubborn)
        call = asyncio.ensure_future(proxy.chat())
        await until(lambda: len(upstream.seen) == 1)

        assert await stop_seconds(proxy) < 0.1 + 3 * CUT_SECONDS + 1

        release.set()
        await asyncio.gather(call, return_exceptions=True)


def test_the_whole_end_fits_into_what_a_pod_is_given_by_default() -> None:
    assert GRACE_SECONDS + 3 * CUT_SECONDS + AUDIT_SECONDS < POD_SECONDS


async def test_a_server_without_requests_ends_at_once(serve: Serve, tmp_path: Path) -> None:
    upstream = await serve(never)
    async with proxy_with_grace(document(provider("p", upstream.base_url)), tmp_path / "audit", 20) as proxy:
        pipeline = proxy.sidecar._pipeline
        assert pipeline is not None
        async with asyncio.timeout(1):
            await ProxyServer(pipeline).end_requests(20)
        assert await stop_seconds(proxy) < 2


# --- the process


def _fill(writer: int, piece: bytes) -> None:
    try:
        while True:
            os.write(writer, piece)
    except BlockingIOError:
        return


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that is full, and that nobody reads."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        for size_bytes in (65536, 1):
            _fill(writer, b"\n" * size_bytes)
        os.set_blocking(writer, True)
        yield writer
    finally:
        os.close(writer)
        os.close(reader)


async def test_the_process_ends_with_status_0_although_nobody_reads_its_log(serve: Serve, tmp_path: Path) -> None:
    upstream = await serve()
    path = tmp_path / "config.json"
    path.write_bytes(render_config(document(provider("p", upstream.base_url))))
    with full_pipe() as stdout, reserved_ports(2) as (port, admin_port):
        process = subprocess.Popen(  # noqa: ASYNC220 - it is watched from a thread
            [
                *(sys.executable, "-m", "llm_sidecar", "serve", "--config", str(path), "--admin-host", "127.0.0.1"),
                *("--port", str(port), "--admin-port", str(admin_port)),
            ],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, "LLM_SIDECAR_TOKEN": TOKEN},
        )
        try:
            async with aiohttp.ClientSession() as session:
                await _until_well(session, port)
                process.send_signal(signal.SIGTERM)
                _, stderr = await asyncio.to_thread(process.communicate, timeout=AUDIT_SECONDS + 3)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, stderr
    assert b"Traceback" not in stderr


async def _until_well(session: aiohttp.ClientSession, port: int) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                url = f"http://127.0.0.1:{port}{CHAT_PATH}"
                async with session.post(url, data=chat_body(), headers={"x-api-key": TOKEN}) as response:
                    assert response.status == 200
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)  # it is just starting; nothing tells when
