"""Each kind of store, once for all examples of a test, with windows that are over in less than a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from llm_sidecar.contract import windows
from llm_sidecar.quota import settlement
from llm_sidecar.redis_kinds import make_store
from tests.integration.quota.machine import MINUTE_SECONDS, Place
from tests.integration.store.servers import Servers, cluster, single

KINDS: Final[dict[str, Callable[[], AbstractAsyncContextManager[Servers]]]] = {"single": single, "cluster": cluster}


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is over soon, and a settlement that failed is tried again at once."""
    monkeypatch.setitem(windows._SHORT_MS, windows.Per.MINUTE, int(MINUTE_SECONDS * 1000))
    monkeypatch.setattr(settlement, "_MAX_BACKOFF_SECONDS", 0.002)


@pytest.fixture(scope="module", params=KINDS)
def store_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A running store of one kind, empty at first."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        context = KINDS[request.param]()
        servers = runner.run(context.__aenter__())

        store = make_store(servers.url, timeout_seconds=5)
        try:
            runner.run(store.connect())
            yield Place(loop=loop, store=store, policy="Deny")
        finally:
            runner.run(store.close())
            runner.run(context.__aexit__(None, None, None))
