"""When a server that is away is asked again."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from llm_sidecar.redis_connection import RedisConnection
from llm_sidecar.redis_endpoint import RedisEndpoint
from llm_sidecar.redis_node import RedisNode
from llm_sidecar.store import StoreUnavailable

ATTEMPTS: Final = 10


class AwayNode(RedisNode):
    """A server that nobody reaches."""

    async def _open(self) -> RedisConnection:
        raise StoreUnavailable("connection")


async def test_the_first_probe_comes_as_soon_as_any_other_however_often_was_tried_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Quick tries, until the breaker opens; then one a second, slower and slower, for a fleet must not keep it down."""
    pauses: list[float] = []
    tried = asyncio.Event()

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > ATTEMPTS:
            tried.set()
            await asyncio.Event().wait()

    monkeypatch.setattr("llm_sidecar.redis_node.asyncio.sleep", slept)
    monkeypatch.setattr("llm_sidecar.redis_node.random.uniform", lambda least, _most: least)
    node = AwayNode(RedisEndpoint(host="127.0.0.1", port=1), failure_threshold=3, open_seconds=1.0)
    node._breaker.succeeded()  # it has answered before: else it is away from the first failure on
    node.begin()
    await tried.wait()
    await node.close()

    assert pauses[:3] == [0.0, 0.02, 0.04]
    assert pauses[3:] == [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0]
