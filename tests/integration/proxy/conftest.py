"""Fixtures of the proxy's own suites: start proxies and providers; all of them end with the test, in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
import pytest_asyncio
import uvloop

from llm_sidecar.app import Sidecar
from llm_sidecar.contract.config import ConfigDocument
from tests.integration.proxy.harness import TOKEN, Answer, Proxy, Upstream, plain, upstream


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of production."""
    return {"uvloop": uvloop.new_event_loop}


class StartProxy(Protocol):
    """Starts a proxy that lives until the test ends."""

    async def __call__(self, document: ConfigDocument, *, token: str | None = TOKEN) -> Proxy:
        """Ready when this returns."""
        ...


@pytest.fixture(autouse=True)
def _the_collector_as_it_was() -> Iterator[None]:
    # A proxy freezes what exists at its start, which is right once per process and not once per test.
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.fixture(autouse=True)
def _no_defect_is_logged(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever an application or a provider does: nothing of it is a defect of ours, and no traceback is logged."""
    caplog.set_level(logging.WARNING)
    yield
    if request.node.get_closest_marker("logs_errors") is None:
        errors = [
            record.getMessage() + (f"\n{caplog.handler.format(record)}" if record.exc_info else "")
            for phase in ("setup", "call")
            for record in caplog.get_records(phase)
            if record.exc_info or record.levelno > logging.WARNING
        ]
        assert not errors, errors


@pytest_asyncio.fixture
async def start_proxy(tmp_path: Path) -> AsyncIterator[StartProxy]:
    """Start proxies."""
    async with AsyncExitStack() as stack:
        number = 0

        async def start(document: ConfigDocument, *, token: str | None = TOKEN) -> Proxy:
            nonlocal number
            number += 1
            audit_path = tmp_path / f"audit-{number}.jsonl"
            descriptor = os.open(audit_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            stack.callback(os.close, descriptor)
            sidecar = Sidecar(document, token=token, audit_descriptor=descriptor, grace_seconds=2)
            listening = await sidecar.start(port=0, admin_port=0)
            stack.push_async_callback(sidecar.stop)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("accept", "accept-encoding"))
            )
            return Proxy(sidecar=sidecar, listening=listening, session=session, audit_path=audit_path)

        yield start


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Upstream]]]:
    """Start providers that live until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(answer: Answer | None = None, **options: object) -> Upstream:
            return await stack.enter_async_context(upstream(answer or plain(), **options))  # type: ignore[arg-type]

        yield start


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "logs_errors: the test provokes what must be logged as an error")
